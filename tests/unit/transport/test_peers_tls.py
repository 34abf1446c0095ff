"""Members that speak TLS to each other: batches, resets and goodbyes as without, and words for members that do not agree about it."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any, AsyncIterator

import pytest
import trustme

from raftkv.limits import DEFAULT_LIMITS
from raftkv.raft import messages as raft
from raftkv.transport.direct import socket_of
from raftkv.transport.handshake import Identity
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.peers import PeerTransport
from raftkv.transport.settings import LinkSettings
from raftkv.transport.tls import TlsFiles
from tests.unit.conftest import Run

SETTINGS = LinkSettings(
    connect_timeout_ms=5000, handshake_deadline_ms=5000, backoff_ms_min=5, backoff_ms_max=20, dead_after_ms=3000
)


class Owner:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.resets: list[int] = []

    def on_messages(self, messages: list[Any]) -> None:
        self.messages += messages

    def on_peer_reset(self, node_id: int) -> None:
        self.resets.append(node_id)

    def on_peer_connected(self, node_id: int) -> None: ...

    def on_peer_unreachable(self, node_id: int) -> None: ...


class Member:
    def __init__(self, node_id: int, tls: PeerTls | None) -> None:
        self.owner = Owner()
        self.node_id = node_id
        identity = Identity(
            cluster_id=7, cluster_name="prod", node_id=node_id, name=f"n{node_id}", incarnation=node_id, version="0"
        )
        self.transport = PeerTransport(
            identity,
            self.owner,
            DEFAULT_LIMITS,
            check_member=lambda hello: None,
            settings=SETTINGS,
            draw=lambda: 0.0,
            tls=tls,
        )
        self.address = ""

    def error_of(self, other: "Member") -> str:
        return self.transport.statistics()[other.node_id].last_error


@contextlib.asynccontextmanager
async def two(first: PeerTls | None, second: PeerTls | None) -> AsyncIterator[tuple[Member, Member]]:
    members = Member(1, first), Member(2, second)
    for member in members:
        member.address = await member.transport.start("127.0.0.1:0")
    addresses = {member.node_id: member.address for member in members}
    for member in members:
        member.transport.set_peers(addresses)
    try:
        yield members
    finally:
        for member in members:
            await member.transport.close()


async def connected(one: Member, two: Member) -> None:
    await until(lambda: one.transport.is_connected(2) and two.transport.is_connected(1))
    await until(lambda: all(peer.accepted for peer in one.transport.statistics().values()))


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.002)


class Office:
    """A CA and members' certificates of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ca = trustme.CA()

    def tls(self, *names: str, ca: trustme.CA | None = None, asks: bool = True) -> PeerTls:
        stem = self._directory / "-".join(names).replace("*", "any")
        paths = [f"{stem}-{kind}.pem" for kind in ("cert", "key", "ca")]
        issued = (ca or self.ca).issue_cert(*names)
        blobs = (issued.cert_chain_pems[0], issued.private_key_pem, self.ca.cert_pem)
        for path, blob in zip(paths, blobs, strict=True):
            blob.write_to_path(path)
        tls = PeerTls(TlsFiles(paths[0], paths[1], paths[2], asks))
        tls.known = lambda: {1: ("n1", "127.0.0.1:2380"), 2: ("n2", "127.0.0.1:2381")}
        return tls


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def append(index: int, size: int) -> raft.AppendEntries:
    return raft.AppendEntries(1, 1, 2, index - 1, 1, 0, [raft.Entry(index, 1, 1, os.urandom(size))])


@pytest.mark.parametrize("asks", [True, False])
def test_batches_in_order_however_large(run: Run, office: Office, asks: bool) -> None:
    async def scenario() -> None:
        async with two(office.tls("127.0.0.1", asks=asks), office.tls("127.0.0.1", "n2", asks=asks)) as (one, other):
            await connected(one, other)
            sent = [append(index, size) for index, size in enumerate((10, 200_000, 3_000_000, 1, 70_000), start=1)]
            one.transport.send_at_once(sent[:2])  # past the turn of the loop, and never past TLS
            one.transport.send(sent[2:])
            await until(lambda: len(other.owner.messages) == len(sent))
            assert other.owner.messages == sent
            link = one.transport._links[2]._connection
            assert link is not None
            assert link._transport is not None
            assert socket_of(link._transport) == -1

    run(scenario())


def test_a_connection_that_breaks_is_a_reset_and_a_goodbye_is_none(run: Run, office: Office) -> None:
    async def scenario() -> None:
        async with two(office.tls("127.0.0.1"), office.tls("127.0.0.1", "n2")) as (one, other):
            await connected(one, other)
            link = one.transport._links[2]._connection
            assert link is not None
            link.abort()  # what the kernel does for a process that was killed
            await until(lambda: other.owner.resets == [1])
            await connected(one, other)
            await one.transport.close()
            await until(lambda: "goodbye" in other.error_of(one) or "refused" in other.error_of(one))
            assert other.owner.resets == [1]

    run(scenario())


def test_the_end_of_a_process_is_a_reset_although_tls_was_not_told(run: Run, office: Office) -> None:
    """The kernel closes what a killed leader had open, without the goodbye of TLS: a failover must not wait for a timeout."""

    async def scenario() -> None:
        async with two(office.tls("127.0.0.1"), office.tls("127.0.0.1", "n2")) as (one, other):
            await connected(one, other)
            link = one.transport._links[2]._connection
            assert link is not None
            assert link._transport is not None
            descriptor = os.dup(link._transport.get_extra_info("socket").fileno())
            with socket.socket(fileno=descriptor) as line:
                line.shutdown(socket.SHUT_RDWR)
            await until(lambda: other.owner.resets == [1])

    run(scenario())


def test_members_that_do_not_agree_about_tls_say_so(run: Run, office: Office, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with two(office.tls("127.0.0.1"), None) as (encrypted, plain):
            await until(lambda: "TLS" in encrypted.error_of(plain) and "TLS" in plain.error_of(encrypted))
            assert not encrypted.transport.is_connected(2)
            assert not plain.transport.is_connected(1)
            await until(lambda: "it speaks TLS, which this member does not on its peer port" in caplog.text)
            await until(lambda: "no TLS: " in caplog.text)

    run(scenario())


def test_a_peer_of_another_ca_or_another_host_is_not_dialled(run: Run, office: Office) -> None:
    async def scenario() -> None:
        async with two(office.tls("127.0.0.1"), office.tls("127.0.0.1", "foreign", ca=trustme.CA())) as (one, other):
            await until(lambda: "unable to get local issuer certificate" in one.error_of(other))
        async with two(office.tls("127.0.0.1"), office.tls("elsewhere")) as (one, other):
            await until(lambda: "not valid for '127.0.0.1'" in one.error_of(other))

    run(scenario())


def test_new_certificates_are_for_the_next_connection(run: Run, office: Office) -> None:
    async def scenario() -> None:
        tls = office.tls("127.0.0.1")
        now = [0.0]
        tls.contexts._clock, tls.contexts._looked_at = lambda: now[0], 0.0
        async with two(tls, office.tls("127.0.0.1", "n2")) as (one, other):
            await connected(one, other)
            connects = one.transport.statistics()[2].connects
            now[0] += 10
            office.tls("127.0.0.1")
            assert one.transport.is_connected(2), "nobody is thrown out"
            link = one.transport._links[2]._connection
            assert link is not None
            link.abort()
            await until(lambda: one.transport.statistics()[2].connects > connects)
            assert tls.contexts.reloads == 1

    run(scenario())
