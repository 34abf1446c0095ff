"""Joining: what stands in the way for a while is said once, and asking goes on; some refusals are the end."""

import asyncio
import logging
from pathlib import Path

import msgpack
import pytest

from raftkv.daemon import joining
from raftkv.daemon.config import load_config
from raftkv.errors import ClusterMismatch, MembershipBusy, MembershipRefused, NoQuorum, QuorumWouldBeLost, RaftKVError
from raftkv.wire.commands import Answer, failure
from tests.unit.conftest import Run


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xc1",
        msgpack.packb([1, []]),
        msgpack.packb([1, 2, 3]),
        msgpack.packb("text"),
        b"\x92\x01\x81\x80\x01",  # a map as the key of a map
    ],
)
def test_whatever_speaks_another_protocol_is_asked_again(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(joining, "RETRY_SECONDS", 0.01)
    asked = asyncio.Event()
    times = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal times
        await reader.read(1)
        writer.write(said)
        await writer.drain()
        writer.close()
        times += 1
        if times == 2:
            asked.set()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        flags = {"name": "n4", "data_dir": str(tmp_path), "join": f"127.0.0.1:{port}"}
        task = asyncio.create_task(joining.join(load_config(flags, {}, directory=tmp_path), tmp_path))
        twice = asyncio.create_task(asked.wait())
        await asyncio.wait({task, twice}, return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), "it gave up"
        await twice
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        server.close()
        await server.wait_closed()

    with caplog.at_level(logging.WARNING, "raftkv.joining"):
        run(scenario())
    assert "does not speak raftkv's protocol" in caplog.text


@pytest.mark.parametrize(
    ("refusals", "ended_by"),
    [
        ([MembershipBusy(), NoQuorum(), QuorumWouldBeLost("nobody answers"), ClusterMismatch("other")], "other"),
        ([MembershipRefused("no"), ClusterMismatch("other")], "no"),
    ],
)
def test_only_refusals_that_stay_are_the_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: list[RaftKVError], ended_by: str
) -> None:
    """A quorum that is missing comes back: to end would leave that to whoever starts the daemon."""
    coming = iter(refusals)

    async def ask(*_: object) -> Answer:
        return failure(next(coming))

    monkeypatch.setattr(joining, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(joining, "_ask", ask)
    flags = {"name": "n4", "data_dir": str(tmp_path), "join": "127.0.0.1:1"}
    with pytest.raises(RaftKVError, match=ended_by):
        run(joining.join(load_config(flags, {}, directory=tmp_path), tmp_path))
