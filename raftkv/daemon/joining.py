"""Joining a running cluster, before this member exists: ask any of its members, follow it to the leader, write down the answer.

What is drawn is written down before it is said, so that a crash at any moment leads to the same member and not to two. The
cluster is asked until it answers: it may be without a leader, or busy with the member that joins next to this one. A few
frames of the native protocol are all that is needed; the client library is not for daemons.
"""

import asyncio
import json
import logging
import secrets
from pathlib import Path
from typing import Any, Final

import msgpack

from raftkv.daemon.config import DaemonConfig
from raftkv.daemon.encryption import client_tls
from raftkv.daemon.membership import Membership, save_membership, write_durably
from raftkv.errors import (
    AuthFailed,
    AuthNotEnabled,
    ClusterMismatch,
    ConfigError,
    Corruption,
    IncarnationMismatch,
    InvalidRequest,
    MembershipRefused,
    PermissionDenied,
    ProtocolError,
    QuorumWouldBeLost,
    Unsupported,
    UserEmpty,
)
from raftkv.transport.addresses import split_address
from raftkv.wire.commands import OK, Answer, error_of
from raftkv.wire.protocol import AUTHENTICATE, CHANGE_MEMBERS, HELLO, PREFACE, hello_options

log = logging.getLogger("raftkv.joining")

ANSWER_SECONDS_MAX: Final = 10.0
RETRY_SECONDS: Final = 0.5
ANSWER_BYTES_MAX: Final = 1 << 20
FILE_NAME: Final = "joining.json"

_FINAL = (
    *(ClusterMismatch, ConfigError, IncarnationMismatch, InvalidRequest, MembershipRefused, Unsupported),
    *(AuthFailed, PermissionDenied, UserEmpty),
)
"""Asking again does not help against these."""


async def join(config: DaemonConfig, directory: Path) -> Membership:
    """The membership that the cluster gave, saved. Raises RaftKVError for a refusal that stays one; else asks until answered."""
    assert config.join is not None, "somebody is to be asked"
    incarnation = _incarnation(directory)
    command = [CHANGE_MEMBERS, {"add": [[config.name, config.advertise_peer, None, incarnation]]}]
    addresses, said = [config.join], ""
    while True:
        address = addresses.pop(0) if addresses else config.join
        try:
            answer = await _ask(address, config, command)
        except (OSError, EOFError, TimeoutError, ProtocolError) as error:
            said = _say(said, f"{address} does not answer: {error or type(error).__name__}")
        else:
            if answer[0] == OK:
                return _save(config, directory, incarnation, answer[1])
            refusal = error_of(answer)
            # Of the quorum a new learner takes nothing: who says that it would be lost lacks it now, which may pass.
            if isinstance(refusal, _FINAL) and not isinstance(refusal, QuorumWouldBeLost):
                raise refusal
            leader = refusal.details.get("leader")
            if leader and leader.get("address") and leader["address"] != address:
                addresses.insert(0, leader["address"])
                continue
            said = _say(said, f"{address}: {refusal.message}")
        await asyncio.sleep(RETRY_SECONDS)


async def _ask(address: str, config: DaemonConfig, command: list[Any]) -> Answer:
    """Greet, log in, ask, and take the answer. Raises OSError, EOFError, TimeoutError or ProtocolError."""
    host, port = split_address(address)
    async with asyncio.timeout(ANSWER_SECONDS_MAX):
        # Who has a certificate for clients belongs to a cluster that speaks TLS to them.
        tls = client_tls(config)
        reader, writer = await asyncio.open_connection(host, port, ssl=None if tls is None else tls.client())
        try:
            hello = hello_options(cluster_name=config.cluster_name, session=None, client="a member that joins")
            commands = [[HELLO, hello], command]
            if config.join_user is not None:
                name, _, password = config.join_user.partition(":")
                commands.insert(1, [AUTHENTICATE, name, password])
            writer.write(PREFACE)
            unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=ANSWER_BYTES_MAX)
            answer: Answer = []
            for request_id, asked in enumerate(commands, start=1):
                writer.write(msgpack.packb([request_id, int(ANSWER_SECONDS_MAX * 900), asked]))
                answer = await _answer(reader, unpacker, request_id)
                if answer[0] != OK and not (asked[0] == AUTHENTICATE and answer[1] == AuthNotEnabled.code):
                    break
            return answer
        finally:
            writer.close()


async def _answer(reader: asyncio.StreamReader, unpacker: Any, request_id: int) -> Answer:
    while data := await reader.read(65536):
        try:
            unpacker.feed(data)
            for answered_id, answer in unpacker:
                if answer[0] != OK or answered_id == request_id:  # in this order: an empty answer is no answer
                    return list(answer)
        except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
            raise ProtocolError(f"it does not speak raftkv's protocol: {error or type(error).__name__}") from error
    raise EOFError("the connection was closed")


def _incarnation(directory: Path) -> int:
    """Drawn once, and kept across attempts. Raises Corruption."""
    path = directory / FILE_NAME
    try:
        incarnation = json.loads(path.read_text())["incarnation"]
    except FileNotFoundError:
        incarnation = secrets.randbits(62) or 1
        write_durably(path, {"incarnation": incarnation})
    except (ValueError, TypeError, KeyError) as error:
        raise Corruption(f"{path}: cannot be read ({error}): delete it and start again") from error
    return int(incarnation)


def _save(config: DaemonConfig, directory: Path, incarnation: int, answer: dict[str, Any]) -> Membership:
    members = answer["members"]
    membership = Membership(
        cluster_name=config.cluster_name,
        name=config.name,
        node_id=answer["ids"][config.name],
        incarnation=incarnation,
        initial_cluster={member["name"]: member["peer_address"] for member in members},
        cluster_id=answer["cluster_id"],
        ids={member["name"]: member["id"] for member in members},
    )
    save_membership(directory, membership)
    (directory / FILE_NAME).unlink()
    log.info("joined cluster %r as member %s (%x)", config.cluster_name, config.name, membership.node_id)
    return membership


def _say(said: str, text: str) -> str:
    """Log a reason for waiting once."""
    if text != said:
        log.warning("cannot join yet: %s", text)
    return text


__all__ = ["join"]
