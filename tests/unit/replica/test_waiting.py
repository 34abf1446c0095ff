"""Who goes into the next entry, and who is told that it is too late for that."""

from raftkv.errors import DeadlineExceeded, NotLeader
from raftkv.replica.groups import WriteGroup
from raftkv.replica.proposals import ROUNDS_KEPT, Proposals
from raftkv.replica.waiting import ROUNDS_NEEDED, WaitingWrites
from tests.unit.replica.origins import RecordingOrigin, put_group

TIMEOUT_MS = 1_000


def keys_of(groups: list[WriteGroup]) -> list[bytes]:
    return [group.commands[0][2] for group in groups]


def test_an_entry_takes_the_first_that_fit_and_one_that_is_larger_alone() -> None:
    waiting, origin = WaitingWrites(250), RecordingOrigin()
    for key, size_bytes in (("a", 100), ("b", 100), ("c", 100), ("large", 900), ("d", 100)):
        waiting.add(put_group(origin, key, size_bytes=size_bytes), 0)
    waiting.add_first(put_group(origin, "urgent"), 0)
    assert waiting.size_bytes == 1_400
    taken = [keys_of(waiting.take(1, 0)) for _ in range(4)]
    assert taken == [[b"urgent", b"a"], [b"b", b"c"], [b"large"], [b"d"]]
    assert (len(waiting), waiting.size_bytes, origin.ends) == (0, 0, 0)


def test_a_deadline_that_has_passed_is_not_proposed() -> None:
    waiting, late, patient = WaitingWrites(1_000), RecordingOrigin(), RecordingOrigin()
    waiting.add(put_group(late, "late", deadline_ms=50), 0)
    waiting.add(put_group(patient, "patient", deadline_ms=5_000), 0)
    assert keys_of(waiting.take(50, 0)) == [b"patient"]
    assert [(type(error), error.may_have_happened) for error in late.errors] == [(DeadlineExceeded, False)]
    assert (waiting.size_bytes, patient.ends) == (0, 0)


def test_nobody_left_makes_no_entry() -> None:
    waiting, late = WaitingWrites(1_000), RecordingOrigin()
    waiting.add(put_group(late, "late", deadline_ms=50), 0)
    assert waiting.take(60, 0) == []
    assert (len(waiting), late.ends) == (0, 1)


def test_who_came_with_little_time_gets_its_chance() -> None:
    """A slow cluster, and clients that want an answer sooner than it gives one, are no queue that stands still."""
    waiting, origin = WaitingWrites(1_000), RecordingOrigin()
    waiting.add(put_group(origin, "hasty", deadline_ms=100), 0)
    assert keys_of(waiting.take(10, 600)) == [b"hasty"]


def test_all_that_wait_can_be_sent_away_once() -> None:
    waiting, origin = WaitingWrites(1_000), RecordingOrigin()
    waiting.add(put_group(origin, "a"), 0)
    waiting.add(put_group(origin, "b"), 0)
    waiting.refuse_all(NotLeader())
    waiting.refuse_all(NotLeader())
    assert (len(waiting), waiting.size_bytes, origin.ends) == (0, 0, 2)


def test_the_round_is_the_quickest_of_late_so_that_a_stall_is_no_overload() -> None:
    proposals, origin = Proposals(), RecordingOrigin()
    rounds_ms = [7] * (ROUNDS_KEPT - 1) + [3_000, 3_000, 7]
    now_ms = 0
    seen = []
    for index, round_ms in enumerate(rounds_ms, start=1):
        proposals.add(index, 1, [put_group(origin, "k")], now_ms)
        now_ms += round_ms
        proposals.applied(index, 1, [[[0, index]]], now_ms)
        seen.append(proposals.round_ms)
    assert seen == [0] * (ROUNDS_KEPT - 1) + [7, 7, 7]


def test_twice_the_load_that_is_carried_still_gets_half_of_it_served() -> None:
    """First come, first served alone would serve nobody: found by the simulator, whose clients got no write in for two minutes."""
    round_ms, arrivals_per_round = 50, 2  # entries of one group, one at a time
    waiting, served, refused = WaitingWrites(1), 0, RecordingOrigin()
    now_ms = 0
    for _ in range(400):
        for _ in range(arrivals_per_round):
            waiting.add(put_group(refused, "k", deadline_ms=now_ms + TIMEOUT_MS), now_ms)
        (group,) = waiting.take(now_ms, round_ms)
        now_ms += round_ms
        answered_ms = now_ms + round_ms  # its way back, and a round that was slower than the quickest
        served += answered_ms < group.deadline_ms
    assert served == 400
    assert len(waiting) <= arrivals_per_round * (TIMEOUT_MS // round_ms - ROUNDS_NEEDED + 1)
    assert all(not error.may_have_happened for error in refused.errors)
