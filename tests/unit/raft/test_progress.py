"""The books about one follower: window, states, stale rejections."""

import pytest

from raftkv.limits import Limits
from raftkv.raft.progress import PROBE, REPLICATE, SNAPSHOT, Inflight, Progress

LIMITS = Limits(
    append_messages_in_flight_max=3,
    append_bytes_in_flight_max=1_000,
    append_message_bytes_max=400,
    request_bytes_max=300,
    value_bytes_max=300,
)


def test_the_window_is_bounded_by_count() -> None:
    inflight = Inflight()
    for last_index in (1, 2, 3):
        assert inflight.budget_bytes(LIMITS) == 400
        inflight.add(last_index, 10)
    assert inflight.budget_bytes(LIMITS) == 0
    inflight.free_to(1)
    assert inflight.budget_bytes(LIMITS) == 400


def test_the_window_is_bounded_by_bytes() -> None:
    inflight = Inflight()
    inflight.add(1, 400)
    inflight.add(2, 400)
    assert inflight.budget_bytes(LIMITS) == 200
    inflight.free_to(2)
    assert (inflight.size_bytes, len(inflight)) == (0, 0)
    inflight.add(3, 5_000)  # an entry larger than the bound went alone
    assert inflight.budget_bytes(LIMITS) == 0


def test_an_acknowledgement_frees_what_comes_before_it() -> None:
    inflight = Inflight()
    for last_index in (5, 10, 15):
        inflight.add(last_index, 1)
    inflight.free_to(12)
    assert len(inflight) == 1
    with pytest.raises(AssertionError, match="sent in order"):
        inflight.add(15, 1)


def test_from_probe_to_replicate_and_back() -> None:
    progress = Progress(2, 11, 0)
    assert (progress.state, progress.nudge) == (PROBE, True)
    assert progress.acknowledge(7)
    progress.become_replicate()
    assert (progress.state, progress.match_index, progress.next_index) == (REPLICATE, 7, 8)
    progress.next_index = 20
    progress.inflight.add(19, 5)
    progress.commit_sent = 18
    progress.become_probe(8)
    assert (progress.state, progress.next_index, len(progress.inflight), progress.commit_sent) == (PROBE, 8, 0, 7)
    with pytest.raises(AssertionError, match="not probed again"):
        progress.become_probe(7)


def test_acknowledgements_never_go_back() -> None:
    progress = Progress(2, 11, 0)
    assert progress.acknowledge(10)
    assert not progress.acknowledge(9)
    assert not progress.acknowledge(10)
    assert progress.match_index == 10


@pytest.mark.parametrize(
    ("state", "previous_index", "stale"),
    [
        (PROBE, 10, False),
        (PROBE, 9, True),
        (PROBE, 11, True),
        (REPLICATE, 5, True),
        (REPLICATE, 6, False),
        (SNAPSHOT, 10, True),
    ],
)
def test_stale_rejections(state: str, previous_index: int, stale: bool) -> None:
    progress = Progress(2, 11, 0)
    progress.acknowledge(5)
    progress.state = state
    progress.next_index = 11
    assert progress.is_stale_rejection(previous_index) is stale
