"""Documentation that cannot fall behind: every verb, option and error code is described, and the README names the two commands."""

import re
from pathlib import Path

import pytest

from raftkv.errors import all_codes
from raftkv_cli.exits import NOT_DONE_CODES
from raftkv_cli.parse import GLOBAL_OPTIONS
from raftkv_cli.verbs import VERBS, load_verb

# Codes whose class leaves the answer to the single error.
OUTCOME_IN_THE_ERROR = {"no_quorum", "deadline_exceeded", "client_closed"}


def verb_sections(project: Path) -> dict[str, str]:
    """docs/cli.md by `## verb` heading."""
    parts = re.split(r"^## `(\S+)`$", (project / "docs" / "cli.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_and_option_is_documented(project: Path, name: str) -> None:
    section = verb_sections(project).get(name)
    assert section, f"docs/cli.md needs a section ## `{name}`"
    if load_verb(name).parses_itself:
        return
    for option in load_verb(name).options:
        assert f"`{option.name}" in section, f"docs/cli.md, {name}: {option.name} is missing"
    for option_name in re.findall(r"^\| `(--[a-z-]+)", section, flags=re.MULTILINE):
        assert option_name in {option.name for option in load_verb(name).options}, f"{name} has no {option_name}"


def test_no_verb_is_documented_that_does_not_exist(project: Path) -> None:
    assert set(verb_sections(project)) == set(VERBS)


def test_global_options_are_documented(project: Path) -> None:
    text = (project / "docs" / "cli.md").read_text()
    assert [option.name for option in GLOBAL_OPTIONS if f"`{option.name}" not in text] == []


def error_rows(project: Path) -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", (project / "docs" / "errors.md").read_text(), flags=re.MULTILINE)
    assert len(rows) == len({code for code, _ in rows}), "a code has one row"
    return {code: rest.split(" | ") for code, rest in rows}


def test_every_error_code_is_documented_and_no_other(project: Path) -> None:
    assert set(error_rows(project)) == set(all_codes())


@pytest.mark.parametrize("code", sorted(all_codes()))
def test_the_documented_outcome_is_that_of_the_class(project: Path, code: str) -> None:
    meaning, outcome, advice = error_rows(project)[code]
    assert meaning
    assert advice
    if code in OUTCOME_IN_THE_ERROR:
        assert outcome.startswith("says itself")
    else:
        assert outcome == ("yes" if all_codes()[code].may_have_happened else "no")


def test_codes_with_an_exit_code_of_their_own_exist() -> None:
    assert set(all_codes()) >= NOT_DONE_CODES


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_the_readme_names_the_two_commands(project: Path, command: str) -> None:
    assert command in (project / "README.md").read_text()
    assert re.search(rf"^{command.split()[1]}:", (project / "Makefile").read_text(), flags=re.MULTILINE)
