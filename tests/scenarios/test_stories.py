"""Golden stories: each file tells what the members do, message by message, and has to come out the same."""

import difflib
from pathlib import Path

import pytest

from tests.scenarios.story import retell

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


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
    assert len(STORIES) >= 9
    assert all("\n  " in path.read_text() for path in STORIES), "a story that tells nothing proves nothing"
