"""Which errors of a callback end the member."""

import pytest

from raftkv.daemon.loop import fatal_error_of
from raftkv.errors import Corruption, DiskFailure, NoSpace


@pytest.mark.parametrize("error", [AssertionError("3.6"), DiskFailure(), Corruption()])
def test_a_broken_invariant_or_disk_ends_the_member_wherever_it_shows(error: BaseException) -> None:
    assert fatal_error_of({"message": "a callback failed", "exception": error}) is error


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), NoSpace(), ValueError(), None])
def test_other_errors_are_logged_and_the_member_goes_on(error: BaseException | None) -> None:
    assert fatal_error_of({"message": "a callback failed", "exception": error}) is None
    assert fatal_error_of({"message": "no exception at all"}) is None
