"""What is said of members whose stores differ, and that nobody reads from a member that is about to end."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from raftkv.daemon.agreement import Agreement
from raftkv.daemon.storage import Storage
from raftkv.daemon.timings import Timings
from raftkv.errors import Diverged
from raftkv.limits import MIB, Limits
from raftkv.raft.effects import DigestHeard
from raftkv.replica.digests import Digests
from raftkv.wire.commands import GET, RANGE

MEMBERS: list[dict[str, Any]] = [{"id": 1, "name": "n1"}, {"id": 2, "name": "n2"}]
WORDS = "the store of member n2 differs: its digest at index 5 is 000000ff, that of this member is 00000007"


class Office:
    """As much of a Raft as is looked at."""

    is_leader = True


def agreement() -> tuple[Agreement, Digests, Office]:
    office, digests = Office(), Digests(8, 5, 7)
    return Agreement(office, digests, lambda: MEMBERS), digests, office  # type: ignore[arg-type]


def test_a_member_that_differs_is_told_of_once_and_stays_in_the_status(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made, digests, _ = agreement()
    made.look()
    assert (caplog.messages, made.errors()) == ([], [])
    digests.hear(DigestHeard(2, 5, 0xFF, agreed=False))
    for _ in range(3):
        made.look()
    assert caplog.messages == [f"{WORDS}; a quorum decides which of them stops"]
    assert made.errors() == [f"diverged: {WORDS}"]
    digests.hear(DigestHeard(2, 5, 7, agreed=False))
    made.look()
    assert caplog.messages[1:] == ["the store of member n2 is that of this member again"]
    assert made.errors() == []


def test_who_does_not_lead_says_nothing_of_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made, digests, office = agreement()
    digests.hear(DigestHeard(2, 5, 0xFF, agreed=False))
    made.look()
    office.is_leader = False
    made.look()
    assert made.errors() == []
    assert len(caplog.messages) == 1, "it does not know whether they agree again"


def test_a_store_that_is_refused_answers_no_read(tmp_path: Path) -> None:
    async def run() -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "snapshots").mkdir()
        storage = Storage(
            loop=asyncio.get_running_loop(),
            store_file=tmp_path / "store" / "store.lmdb",
            snapshots_path=tmp_path / "snapshots",
            limits=Limits(map_bytes=64 * MIB),
            timings=Timings(),
        )
        get, everything = [GET, 0, b"a"], [RANGE, 0, b"a", b"z", 0, 0, 0, 0, 0]
        assert storage.read(get)[0] == 0
        storage.refusal = Diverged()
        for _ in range(2):
            with pytest.raises(Diverged):
                storage.read(get)
            with pytest.raises(Diverged):
                storage.range_cursor(everything)
        await storage.close(0)

    asyncio.run(run())
