"""Members of several versions: what not all of them know does not get into the log, and who meets it all the same stops."""

from typing import Any

import pytest

from raftkv.errors import Corruption, Unsupported
from raftkv.replica.groups import WriteGroup
from raftkv.replica.versions import VersionGate
from raftkv.store import apply
from raftkv.wire.commands import PUT
from raftkv.wire.versions import SINCE

from .minicluster import Member, MiniCluster
from .origins import RecordingOrigin

NEXT = 31
NEXT_VERSION = (0, 2, 0)


class Members:
    def __init__(self, *versions: str) -> None:
        self.versions = versions

    def members(self) -> list[dict[str, Any]]:
        return [{"name": f"n{number}", "version": text} for number, text in enumerate(self.versions, 1)]


@pytest.mark.parametrize(
    ("versions", "behind"),
    [
        (("0.2.0", "0.2.0", "0.3.1"), None),
        (("0.2.0", "0.1.0", "0.2.0"), "n2 has 0.1.0"),
        (("0.1.9", "0.2.0", "odd"), "n1 has 0.1.9, n3 has odd"),
        (("0.2.0", "", "0.2.0"), None),  # it has never run: nothing is known of it
    ],
)
def test_the_oldest_member_decides(versions: tuple[str, ...], behind: str | None) -> None:
    gate = VersionGate(Members(*versions), {PUT: (0, 1, 0), NEXT: NEXT_VERSION})
    assert gate.refusal([[PUT, 0, b"k", b"v", 0, 0]]) is None
    refusal = gate.refusal([[PUT, 0, b"k", b"v", 0, 0], [NEXT, 0, b"k", b"v", 0, 0]])
    if behind is None:
        assert refusal is None
    else:
        assert isinstance(refusal, Unsupported)
        assert not refusal.may_have_happened
        assert refusal.message == f"operation 31 needs version 0.2.0 on every member, {behind}: upgrade first"
        assert refusal.details == {"version": "0.2.0"}


def test_what_nobody_knows_is_refused_whatever_members_say() -> None:
    refusal = VersionGate(Members("9.0.0")).refusal([[99, 0]])
    assert refusal is not None
    assert "no write that the leader knows" in refusal.message


@pytest.fixture
def upgraded(monkeypatch: pytest.MonkeyPatch) -> MiniCluster:
    """Three members that know NEXT, the third of which says that it does not."""
    monkeypatch.setitem(SINCE, NEXT, NEXT_VERSION)
    monkeypatch.setitem(apply._HANDLERS, NEXT, lambda state, command: apply._put(state, [PUT, *command[1:]]))
    cluster = MiniCluster()
    say(cluster, 3, "0.1.0")
    return cluster


def say(cluster: MiniCluster, node_id: int, version: str) -> None:
    """From now on that member runs this version; it tells the log by itself."""
    record = cluster.members[node_id].service._upkeep._own_record()
    record[5] = version
    cluster.members[node_id].service._upkeep._own_record = lambda: record  # type: ignore[method-assign]


def write(member: Member, *operations: int) -> RecordingOrigin:
    origin = RecordingOrigin()
    commands = [[operation, 0, b"key", b"value", 0, 0] for operation in operations]
    member.service.forward(WriteGroup(origin, [1] * len(commands), commands, size_bytes=100, deadline_ms=1 << 40))
    member.cluster.settle()
    return origin


def test_a_rolling_upgrade(upgraded: MiniCluster) -> None:
    leader = upgraded.elect()
    upgraded.pass_time(2_000)  # everybody is in the log
    for member in (leader, *upgraded.followers()):  # forwarded or not, the leader decides
        origin = write(member, PUT, NEXT)
        assert [error.code for error in origin.errors] == ["unsupported"]
        assert "n3 has 0.1.0" in origin.errors[0].message
    assert not write(leader, PUT).errors
    say(upgraded, 3, "0.2.0")
    upgraded.pass_time(2_000)
    assert [answer[0] for answer in write(upgraded.followers()[0], NEXT).answers[0]] == [0]
    upgraded.pass_time(1_000)
    assert len({member.storage.store.digest for member in upgraded.members.values()}) == 1


def test_a_member_that_is_older_than_it_said_stops(upgraded: MiniCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    leader = upgraded.elect()
    say(upgraded, 3, "0.2.0")
    upgraded.pass_time(2_000)
    monkeypatch.delitem(apply._HANDLERS, NEXT)
    with pytest.raises(Corruption, match=r"operation 31, which this version of raftkv does not know"):
        write(leader, NEXT)
