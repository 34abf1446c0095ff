"""Golden stories: each file tells what the members do, message by message, and has to come out the same."""

import difflib
import re
from pathlib import Path

import pytest

from tests.scenarios.story import COMMANDS, Story, retell

HERE = Path(__file__).parent
STORIES = sorted(HERE.glob("*.txt"))
README = (HERE / "README.md").read_text()


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    before = path.read_text()
    now = retell(before)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(now)
        return
    difference = "\n".join(difflib.unified_diff(before.splitlines(), now.splitlines(), "told", "now", lineterm=""))
    assert now == before, f"{path.name} goes differently (--rewrite records it anew):\n{difference}"


def test_the_stories_are_there() -> None:
    assert len(STORIES) >= 60
    assert all("\n  " in path.read_text() for path in STORIES), "a story that tells nothing proves nothing"
    assert all(path.read_text().startswith("# ") for path in STORIES), "a story says what it shows"


def test_every_command_is_told_of_and_used() -> None:
    listed, rest = README.split("## Compared with")
    told_of = set(re.findall(r"[`] ?([a-z-]+)(?=[ `])", listed)) - {"quietly"}
    assert told_of >= set(COMMANDS)
    used = {line.split()[1] for path in STORIES for line in path.read_text().splitlines() if line.startswith("> ")}
    used |= {line.split()[2] for path in STORIES for line in path.read_text().splitlines() if "> quietly " in line}
    assert used - {"quietly"} == set(COMMANDS), "a command that no story uses is no use"
    named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", re.sub(r"(?m)^\| [a-z0-9_]+ \|", "", rest)))
    assert named <= {path.stem for path in STORIES}, "the comparison names stories that are there"


def test_a_story_that_does_not_make_sense_fails() -> None:
    """A refusal that nobody reads, a loss of nothing, an impossible log, an unknown word: the story is wrong, not the core."""
    story = Story()
    story.run("cluster 3")
    for command, words in (
        ("quietly propose 2 a", "a refusal is never quiet"),
        ("lose 3", "nothing is under way"),
        ("finish-save 1", "no save is under way"),
        ("log 2 1 2 1", "terms never decrease"),
    ):
        with pytest.raises(AssertionError, match=words):
            story.run(command)
    with pytest.raises(KeyError):
        story.run("dance 3")
