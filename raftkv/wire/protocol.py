"""The native client protocol: a preface, then msgpack arrays in both directions. Shared by the client and the daemon.

The client opens with PREFACE and a HELLO request; nothing else is answered before. Then it pipelines requests; answers
come in any order.

    request   [id, timeout_ms, command]     id > 0 and not in use on this connection; timeout_ms 0 means none
    notice    [0, 0, [ACK, ack_below]]      once per burst of writes, before them; never answered
    answer    [id, answer]                  answer as in wire/commands.py

Control commands (everything else is in wire/commands.py):

| command | items | answer after the status |
|---|---|---|
| HELLO | op, options: protocol, cluster_name or None, session (16 bytes) or None, client (a name for logs) | a mapping: protocol, version, cluster_id, cluster_name, member_id, member_name, incarnation, leader, members, limits |
| ACK | op, ack_below, register | none |
| STATUS | op | a mapping, see DESIGN of `status -o json` |
| MEMBERS | op | [{id, name, address, peer_address, voter, learner, version}, ...] |
| MOVE_LEADER | op, target name or "" for the best | {leader: {...}} |
| CHANGE_MEMBERS | op, mapping: any of add [[name, peer_address, learner or None, incarnation or None], ...], promote, demote, remove [name, ...], move [[name, peer_address], ...], force | {members, ids: {name: id}, cluster_id}; only the leader does it |
| FORWARD | op, session, register, ack_below, command | the answer of that command, from the leader: one hop, never retried |
| PING | op | nothing |
| WATCH_CREATE | op, key, range_end, start_revision (0: from now), flags (wire/watching.py) | WATCH_CREATE, revision: it has begun; then any number of further answers under its id: WATCH_EVENTS, revision, more, events. A failure ends it |
| WATCH_CANCEL | op, id of the WATCH_CREATE | whether there was such a watch; nothing follows under its id |
| WATCH_PROGRESS | op | revision, once all watches of this connection have had everything up to it |
| WAIT | op, condition (wire/watching.py), all or any, [key, ...], revision | revision, key-values or None, one per key, once the condition holds; `deadline_exceeded` at the timeout |
| BACKUP_OPEN | op | a mapping: id, size_bytes, checksum (CRC-32), index, revision, cluster_id, cluster_name; of this member's store as of now |
| BACKUP_READ | op, id, offset, size | bytes, at most 1 MiB; empty behind the end |
| BACKUP_CLOSE | op, id | nothing |
| DEFRAGMENT | op | a mapping: before_bytes, after_bytes, seconds; once this member's store has a file without free pages |
| AUTHENTICATE | op, name, password | the auth revision: the requests that follow on this connection are those of this user; what is on its way goes on as it began |
| KEEP_ALIVE | op, [lease id, ...] | revision, [ttl_ms, ...]: the whole time again from before the request, 0 for a lease that does not exist |

An event is [kind (0 put, 1 delete), key-value, previous key-value or None]; that of a delete has only key and mod_revision. `more`: further events of
the last revision follow. No events: all up to `revision` were sent.

A member is the mapping {id, name, address}; `leader` is one of those or None. A HELLO that pins another cluster name is
refused with `cluster_mismatch` and the connection is closed. So is a peer that sends anything that is no such array.
"""

from typing import TYPE_CHECKING, Any, Final, Mapping

import msgpack

from raftkv.errors import InvalidRequest, ProtocolError

if TYPE_CHECKING:  # limits needs dataclasses, 10 ms that the command line does not have
    from raftkv.limits import Limits

PREFACE: Final = b"RKV1"
PROTOCOL_VERSION: Final = 1

HELLO: Final = 96
ACK: Final = 97
STATUS: Final = 98
MEMBERS: Final = 99
MOVE_LEADER: Final = 100
FORWARD: Final = 101
PING: Final = 102
CHANGE_MEMBERS: Final = 103
WATCH_CREATE: Final = 110
WATCH_CANCEL: Final = 111
WATCH_PROGRESS: Final = 112
WATCH_EVENTS: Final = 113
WAIT: Final = 114
KEEP_ALIVE: Final = 117
BACKUP_OPEN: Final = 118
BACKUP_READ: Final = 119
BACKUP_CLOSE: Final = 120
DEFRAGMENT: Final = 121
AUTHENTICATE: Final = 125

SESSION_ID_BYTES: Final = 16


def new_packer() -> msgpack.Packer:
    """A packer for one connection; `pack` is about 0.3 us per small message."""
    return msgpack.Packer(autoreset=True, use_bin_type=True)


def new_unpacker(limits: "Limits") -> msgpack.Unpacker:
    """A streaming unpacker for one connection. It never holds more than one oversize request before it refuses."""
    buffer_bytes = max(limits.connection_in_flight_bytes_max, 2 * limits.request_bytes_max)
    return msgpack.Unpacker(
        raw=False,
        strict_map_key=False,
        use_list=True,
        max_buffer_size=buffer_bytes,
        max_bin_len=limits.request_bytes_max,
        max_str_len=limits.request_bytes_max,
        max_array_len=131_072,
        max_map_len=1_024,
        max_ext_len=0,
    )


def hello_options(
    *, cluster_name: str | None, session: bytes | None, client: str, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The options of a HELLO."""
    return {
        "protocol": PROTOCOL_VERSION,
        "cluster_name": cluster_name,
        "session": session,
        "client": client,
        **(extra or {}),
    }


def check_request(message: Any) -> tuple[int, int, list[Any]]:
    """The parts of a request. Raises ProtocolError for anything that is not one."""
    if type(message) is not list or len(message) != 3:
        raise ProtocolError("a request is an array of id, timeout and command")
    request_id, timeout_ms, command = message
    if type(request_id) is not int or type(timeout_ms) is not int or type(command) is not list or not command:
        raise ProtocolError("a request is an array of id, timeout and command")
    if request_id < 0 or timeout_ms < 0 or type(command[0]) is not int:
        raise ProtocolError("request id, timeout and operation are not negative integers")
    return request_id, timeout_ms, command


def check_session(session: Any) -> None:
    """Raises ProtocolError for what is neither None nor the id of a session."""
    if session is not None and not (type(session) is bytes and len(session) == SESSION_ID_BYTES):
        raise ProtocolError(f"a session is {SESSION_ID_BYTES} bytes")


def check_keep_alive(command: list[Any], leases_max: int) -> None:
    """Raises InvalidRequest for a KEEP_ALIVE that is malformed or has too many leases."""
    ids = command[1] if len(command) == 2 else None
    if type(ids) is not list or not 0 < len(ids) <= leases_max:
        raise InvalidRequest(f"KEEP_ALIVE takes a list of 1 to {leases_max} lease ids")
    if not all(type(lease_id) is int and -(2**63) <= lease_id < 2**63 for lease_id in ids):
        raise InvalidRequest("the id of a lease is a 64-bit integer")
