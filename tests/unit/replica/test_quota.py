"""Who raises the alarm of a full store, and that it ends by itself."""

from typing import Any

from raftkv.limits import Limits
from raftkv.wire.commands import SET_ALARM, decode_batch
from tests.unit.replica.fakes import Bench


def alarms(bench: Bench) -> list[list[Any]]:
    groups = [group for entry in bench.raft.proposed for group in decode_batch(entry.data)[1]]
    return [command for group in groups for command in group[5] if command[0] == SET_ALARM]


def look(bench: Bench, now_ms: int) -> None:
    bench.service.tick(now_ms)
    bench.service.flush(now_ms)


def test_a_member_says_that_it_is_over_its_quota_and_that_it_is_no_more() -> None:
    bench = Bench(Limits(quota_bytes=1_000))
    store = bench.state_machine
    store.db_size_in_use_bytes = 1_000
    look(bench, 1000)
    assert alarms(bench) == [], "the quota may be used up"
    store.db_size_in_use_bytes = 1_001
    look(bench, 2000)
    assert alarms(bench) == [[SET_ALARM, 0, 1, True]]
    store.full_members = frozenset({1})
    bench.apply_all([[[0, 1]]])
    store.db_size_in_use_bytes = 951
    look(bench, 3000)
    assert len(alarms(bench)) == 1, "not with every page"
    store.db_size_in_use_bytes = 950
    look(bench, 4000)
    assert alarms(bench)[1:] == [[SET_ALARM, 0, 1, False]]
