"""Every write has the version that brought it: whoever adds one says so, and members of that version alone may have it in their log."""

import pytest

import raftkv
from raftkv.wire.commands import CLIENT_WRITES, SYSTEM_WRITES
from raftkv.wire.versions import FIRST_RELEASE, SINCE, read_version, show_version


def test_every_write_has_a_version_that_is_out_or_about_to_be() -> None:
    now = read_version(raftkv.__version__)
    assert now is not None
    assert SINCE.keys() == CLIENT_WRITES | SYSTEM_WRITES
    assert all(FIRST_RELEASE <= version <= now for version in SINCE.values())


def test_what_the_first_release_knows_never_changes() -> None:
    """A row moved back to it would let a write into the log that members out there do not know."""
    first = {operation for operation, version in SINCE.items() if version == FIRST_RELEASE}
    assert first == {*range(1, 14), *range(16, 28), *range(32, 42), 48}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        *(("0.1.0", (0, 1, 0)), ("0.2.0rc1", (0, 2, 0)), ("1.10", (1, 10, 0)), ("2", (2, 0, 0))),
        *(("0.2.1.dev3+g12ab", (0, 2, 1)), ("", None), ("unknown", (0, 0, 0)), ("v1", (0, 0, 0))),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    assert read_version(text) == version


def test_versions_are_shown() -> None:
    assert show_version((0, 12, 3)) == "0.12.3"
