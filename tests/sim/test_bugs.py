"""The planted bugs are caught, each by its own doing; and the runner would say so if one was not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from raftkv.raft.state import State

from .bugs import BUGS, FalseAlarm, run_all, run_bug
from .planted.registry import Bug, swapped
from .planted.stage import Stage, StoryFailed

DEMANDED = (
    "vote twice in a term",
    "vote for a stale log",
    "reply before save",
    "commit an old-term entry",
    "lose hard state",
    "apply twice after restart",
    "stale read after leadership loss",
    "reuse of a ReadIndex request across leaders",
    "session forgotten in a snapshot",
    "configuration used before it is in the log",
    "torn tail accepted",
    "truncation of committed entries",
    "lease read after clock jump",
    "pre-vote that raises terms",
    "snapshot that drops the membership",
)


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name: str) -> None:
    bug = BUGS[name]
    assert run_bug(bug).how, f"nobody notices: {bug.wrong}; this breaks: {bug.breaks}"


def test_the_bugs_that_must_be_there_are_there() -> None:
    assert [name for name in DEMANDED if name not in BUGS] == []
    assert all(bug.wrong and bug.breaks for bug in BUGS.values())


def test_the_page_about_it_counts_them(project: Path) -> None:
    assert f"{len(BUGS)} planted bugs" in (project / "docs" / "consensus.md").read_text()


def no_bug() -> Bug:
    """A bug that changes nothing."""

    def plant() -> Iterator[None]:
        with swapped(State, "answer", State.answer):
            yield

    return replace(BUGS["reply before save"], name="none", plant=contextmanager(plant), seeds_max=1)


def test_a_bug_that_nobody_notices_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_bug(no_bug()).how == ""
    monkeypatch.setitem(BUGS, "none", no_bug())
    assert run_all(["none"], 1) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("MISSED")
    assert told[-1] == "caught 0 of 1"


def test_a_catch_that_the_right_code_shares_is_none() -> None:
    def story(stage: Stage) -> None:
        raise AssertionError("whatever the code")

    with pytest.raises(FalseAlarm):
        run_bug(replace(no_bug(), story=story))


def test_a_script_that_does_not_get_there_is_no_catch() -> None:
    def story(stage: Stage) -> None:
        stage.open(3)
        stage.expect("somebody leads", False)

    with pytest.raises(StoryFailed):
        run_bug(replace(no_bug(), story=story))


def test_planting_leaves_nothing_behind() -> None:
    before = State.answer
    with BUGS["reply before save"].plant():
        assert State.answer is not before
    assert State.answer is before
