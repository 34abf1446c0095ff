"""The end of a storage comes at any moment: it waits for what has to be finished, and for nothing else."""

import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from raftkv.raft.messages import Configuration
from raftkv.store import snapshot
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.store import Store
from tests.unit.daemon.storage_rig import LIMITS, Rig, content_of, state_of
from tests.unit.store.stores import meta_of, put


async def test_the_end_of_the_member_does_not_wait_for_any_copy(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot for a follower, say: of gigabytes it would outlast the time that a shutdown has."""
    begun, stopped = threading.Event(), threading.Event()

    def copy(keyspace: LmdbKeyspace, path: str) -> None:
        begun.set()
        assert stopped.wait(20), "nobody stopped it"
        raise OSError(errno.ECANCELED, "given up")

    monkeypatch.setattr(LmdbKeyspace, "copy", copy)
    monkeypatch.setattr(LmdbKeyspace, "stop_copying", lambda keyspace: stopped.set())
    for _ in range(2):
        rig.storage.begin_snapshot(Configuration(frozenset({1})))
    await rig.loop.run_in_executor(None, begun.wait, 20)
    await rig.close()
    assert stopped.is_set()


@pytest.mark.parametrize("step", ["before", "after"])
async def test_the_end_in_the_middle_of_taking_in_a_snapshot(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The old store is closed, the new one has or has not its name yet: nothing is left to commit, and the next start finds one of them."""
    await rig.commit()
    meta = meta_of(snapshot.write(rig.storage.store.keyspace, str(tmp_path / "snapshot")))
    content = content_of(str(tmp_path / "snapshot"))
    assert rig.storage.receive_chunk(meta, 0, content) == meta.size_bytes
    before = rig.state()
    rig.apply(put(b"late", b"which nobody has committed"))
    begun, closing = threading.Event(), threading.Event()

    def install(*arguments: Any) -> None:
        if step == "after":
            snapshot.install(*arguments)
        begun.set()
        assert closing.wait(20), "nobody closes"
        if step == "before":
            snapshot.install(*arguments)

    monkeypatch.setattr("raftkv.daemon.storage.install", install)
    rig.storage.begin_install(meta)
    await rig.loop.run_in_executor(None, begun.wait, 20)
    rig.loop.call_soon(closing.set)
    await rig.close()
    reopened = Store.open(LmdbKeyspace.open(str(rig.directory.store_file), LIMITS), LIMITS)
    assert state_of(reopened) == before
    reopened.close()
