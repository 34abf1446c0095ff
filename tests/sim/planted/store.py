"""Bugs of the state machine and of snapshots: store/, raft/snapshot.py."""

from collections.abc import Iterator
from typing import Any

from raftkv.errors import RaftKVError
from raftkv.raft.membership import History
from raftkv.store import apply
from raftkv.store.keyspace import SESSIONS
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.sessions import Session, Sessions
from raftkv.store.snapshot import SnapshotBytesReceiver
from raftkv.wire.commands import Answer

from . import stories
from .registry import bug, swapped

SMALL_LOG = {"log_retained_entries_max": 5, "log_retained_bytes_max": 1024}
CRASHES = {"disasters": ("kill", "isolate_leader"), "nemesis_us": 150_000}
RETRIES = {
    "disasters": ("kill", "isolate_leader", "loss"),
    "nemesis_us": 150_000,
    "loss": 0.1,
    "call_timeout_s": 5.0,
    "think_us": 5_000,
}


@bug(
    "session forgotten in a snapshot",
    "a received snapshot comes without its sessions",
    "exactly once, also after a snapshot (6.3)",
    knobs=CRASHES,
    limits=SMALL_LOG,
)
def session_forgotten_in_a_snapshot() -> Iterator[None]:
    original = SnapshotBytesReceiver.finish

    def finish(self: SnapshotBytesReceiver) -> MemoryKeyspace:
        keyspace = original(self)
        keyspace._tables[SESSIONS].records.clear()
        keyspace._tables[SESSIONS].names.clear()
        return keyspace

    with swapped(SnapshotBytesReceiver, "finish", finish):
        yield


@bug(
    "sessions not committed",
    "the store commits its data without the sessions that changed with them",
    "exactly once, also after a restart (6.3)",
    knobs=CRASHES,
)
def sessions_not_committed() -> Iterator[None]:
    with swapped(Sessions, "take_changes", lambda self: ([], [])):
        yield


@bug(
    "deduplication ignored",
    "a retry is done again although its answer is known",
    "exactly once (6.3)",
    knobs=RETRIES,
)
def deduplication_ignored() -> Iterator[None]:
    def run_once(state: Any, session: Session, commands: list[Any]) -> list[Answer]:
        answers = []
        for command in commands:
            answer = apply._run(state, command)
            if command[1] > 0 and command[1] not in session.answers:
                session.answers[command[1]] = answer
            answers.append(answer)
        return answers

    with swapped(apply, "_run_once", run_once):
        yield


@bug(
    "unknown session made anew",
    "a write of a session that has ended is done under a new one, without its memory",
    "exactly once: nobody knows what became of it, so it is refused (6.3)",
    story=stories.session_ends_before_the_retry,
)
def unknown_session_made_anew() -> Iterator[None]:
    original = apply._open_session

    def open_session(state: Any, session_id: Any, register: bool, ack_below: Any, user: Any) -> Session:
        return original(state, session_id, True, ack_below, user)

    with swapped(apply, "_open_session", open_session):
        yield


@bug(
    "apply depends on the member",
    "a counter gets a value that differs from member to member",
    "one state machine: equal logs make equal stores (3.5)",
)
def apply_depends_on_the_member() -> Iterator[None]:
    original = apply._HANDLERS[apply.INCREMENT]  # type: ignore[attr-defined]
    stores: dict[int, int] = {}

    def increment(state: Any, command: list[Any]) -> Answer:
        number = stores.setdefault(id(state), len(stores))
        return original(state, [*command[:3], command[3] + number % 2])

    with swapped(apply._HANDLERS, apply.INCREMENT, increment):  # type: ignore[attr-defined]
        yield


@bug(
    "refused write leaves something behind",
    "an append that is too long is done before it is refused",
    "what is surely not done is not done",
    knobs={"keys": 4, "operations_per_key": 400},
    limits={"value_bytes_max": 512},
)
def refused_write_leaves_something() -> Iterator[None]:
    original = apply._HANDLERS[apply.APPEND]  # type: ignore[attr-defined]

    def append(state: Any, command: list[Any]) -> Answer:
        try:
            return original(state, command)
        except RaftKVError:
            old = state.mvcc.get(command[2])
            state.mvcc.put_over(old, command[2], command[3], 0)
            state.mvcc.finish()
            raise

    with swapped(apply._HANDLERS, apply.APPEND, append):  # type: ignore[attr-defined]
        yield


@bug(
    "snapshot that drops the membership",
    "a member that takes in a snapshot goes on with the configuration that it had",
    "the configuration is part of the snapshot (5.1)",
    story=stories.membership_in_a_snapshot,
)
def snapshot_drops_the_membership() -> Iterator[None]:
    original = History.restore

    def restore(self: History, index: int, configuration: Any, *, suffix_kept: bool) -> None:
        original(self, index, self.latest, suffix_kept=suffix_kept)

    with swapped(History, "restore", restore):
        yield
