"""The store against a plain model, through every way that data takes: overlay, frozen layer, LMDB, restart, snapshot.

Two members, one on each keyspace, are fed the same random entries. Each freezes, commits, fails to commit, restarts and is
replaced by its own snapshot at moments of its own; both must give the model's answers and have one digest all the time. Keys
around LMDB's limit, with shared prefixes and zero bytes, are in all of it, and ranges are cut into tiny steps.
"""

import shutil
import tempfile
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from raftkv.errors import Compacted, NoSpace, RaftKVError
from raftkv.limits import MIB, Limits
from raftkv.raft.messages import ENTRY_COMMANDS, Entry
from raftkv.store import compaction, mvcc, overlay, pages, past, ranges
from raftkv.store.commit import CommitJob
from raftkv.store.keyspace import HEAD, LOG, PAST, Keyspace
from raftkv.store.lmdb_keyspace import LmdbKeyspace
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.pages import unpack_page
from raftkv.store.ranges import RangeCursor
from raftkv.store.records import POSITION_BYTES, key_of, revision_of
from raftkv.store.snapshot import (
    SnapshotBytesReader,
    SnapshotBytesReceiver,
    SnapshotFileReader,
    SnapshotReceiver,
    dump_memory,
    install,
    write,
)
from raftkv.store.store import Store
from raftkv.wire.commands import (
    CHECKPOINT_LEASES,
    COMPACT,
    CREATE_CLUSTER,
    EXPIRE_LEASES,
    EXPIRE_SESSIONS,
    FORGET_MEMBER,
    GUARDED,
    LEASE_GRANT,
    LEASE_REVOKE,
    LEASES,
    PUBLISH_MEMBER,
    RANGE,
    READ_TXN,
    RECORD_MEMBER,
    SET_ALARM,
    TXN,
    encode_batch,
)
from tests.unit.store.model import Model, Refused, check_shape
from tests.unit.store.stores import append, delete, get, increment, meta_of, put, ranged, txn

LIMITS = Limits(
    map_bytes=16 * MIB,
    session_window=4,
    session_ttl_ms=100,
    sessions_max=2,
    leases_max=4,
    lease_keys_max=2,
    lease_expiry_keys_max=3,
    txn_operations_max=5,
)

_LONG = b"p" * 470
KEYS = [
    *(b"\0", b"a", b"a\0", b"a\0\x01", b"a\0\xff", b"a\x01", b"b", b"\xfe", b"\xff\xff"),
    *(_LONG[:447], _LONG[:446], _LONG[:448] + b"\0", _LONG[:448] + b"\x01"),
    *(_LONG + tail for tail in (b"123456789", b"1234567890", b"12345678901", b"1234567890\0", b"q")),
    *(_LONG + b"1234567890" + b"x" * length for length in (31, 32, 1520)),
    *(b"\0" * length for length in (230, 479, 480, 511)),
]
ENDS = [b"c", b"q", _LONG + b"2"]

VALUES = [b"", b"1", b"-7", b"9223372036854775807", b"text", b"z" * 300]
LEASE_IDS = [5, 6, -7, 2**63 - 1]
DRAWN = "some lease whose id was drawn"
SESSIONS = [b"session-number-1", b"session-number-2", b"session-number-3"]
STEPS = {
    "apply": 12,
    "cycle": 2,
    "freeze": 3,
    "run": 4,
    "full": 1,
    "thaw": 3,
    "restart": 1,
    "snapshot": 1,
    "read": 3,
    "begin": 2,
    "read together": 2,
    "compact": 4,
}


class Teller:
    """Tells a random story. Drawn by hand from one seed: hypothesis's own lists are mostly too short to get anywhere."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        # Few keys at a time, so that commands meet each other's.
        self.keys = self.random.sample(KEYS, 6)

    def story(self, length: int) -> Iterator[tuple[Any, ...]]:
        grants = [[LEASE_GRANT, 0, lease, 2500] for lease in LEASE_IDS[:2]]
        yield "apply", 0, [[None, False, 0, None, 0, grants]]
        for _ in range(length):
            (name,) = self.random.choices(list(STEPS), weights=list(STEPS.values()))
            if name == "apply":
                yield (
                    name,
                    self.random.choice([0, 0, 20, 60, 150]),
                    [self.group() for _ in range(self.random.randint(1, 3))],
                )
            elif name in ("read", "begin"):
                yield name, self.ranged()
            elif name == "read together":
                yield "read", self.read_txn()
            else:
                yield name, self.random.randrange(2)

    def group(self) -> list[Any]:
        session = self.random.choice([None, None, None, *SESSIONS])
        commands = [self.write() for _ in range(self.random.randint(0, 4))]
        if session is not None:
            commands = [[command[0], self.random.randint(0, 8), *command[2:]] for command in commands]
        if self.random.random() < 0.2:
            commands.append([EXPIRE_SESSIONS, 0])
        if self.random.random() < 0.2:
            commands.append(self.word_of_leader())
        if self.random.random() < 0.3:
            commands.append(self.word_of_member())
        return [session, self.random.random() < 0.7, self.random.choice([0, 0, 1, 2, 5]), None, 0, commands]

    def write(self) -> list[Any]:
        kind = self.random.randrange(20)
        if kind > 17:
            return [COMPACT, 0, self.random.choice([-1, 0, 1, *range(2, 16)])]
        if kind > 13:
            return self.put()
        if kind == 13:
            return self.guarded()
        if kind in (11, 12):
            return [LEASE_GRANT, 0, self.random.choice([*LEASE_IDS, 0]), self.random.choice([-1, 0, 2000, 3000])]
        if kind == 10:
            return [LEASE_REVOKE, 0, self.random.choice([*LEASE_IDS, DRAWN])]
        if kind == 0:
            return [*increment(self.key(), self.random.randint(-9, 9)), *self.lease_of_new()]
        if kind == 1:
            return [*append(self.key(), self.random.choice(VALUES)), *self.lease_of_new()]
        if kind in (2, 3, 4):
            return self.txn(2)
        return self.delete() if kind in (5, 6) else self.put()

    def lease_of_new(self) -> list[int]:
        return self.random.choice([[], [], [0], [self.random.choice(LEASE_IDS)]])

    def guarded(self) -> list[Any]:
        guards = [
            [self.key(), self.random.choice([2, 2, 3, 4, 5, 6, 8, 10])] for _ in range(self.random.choice([1, 1, 2]))
        ]
        inner = self.write()
        while inner[0] in (GUARDED, LEASE_GRANT, LEASE_REVOKE, COMPACT):
            inner = self.write()
        return [GUARDED, 0, [guard for guard in guards if guard[0]] or [[b"a", 2]], inner]

    def word_of_member(self) -> list[Any]:
        """Alarms mostly end: while there is one, nothing else is done."""
        node_id, name = self.random.randint(1, 4), self.random.choice(["n1", "n2", "n3"])
        kind = self.random.randrange(8)
        if kind == 0:
            members = [[number, f"n{number}", "somewhere:1"] for number in self.random.sample([1, 2, 3], 2)]
            return [CREATE_CLUSTER, 0, self.random.choice([77, 88]), "name", members]
        if kind in (1, 2):
            return [PUBLISH_MEMBER, 0, node_id, name, self.random.choice([1, 1, 2]), "here:1", "there:2", "0.1.0"]
        if kind in (3, 4):
            return [RECORD_MEMBER, 0, node_id, name, "there:3", self.random.random() < 0.5]
        if kind == 5:
            return [FORGET_MEMBER, 0, node_id]
        return [SET_ALARM, 0, node_id, self.random.random() < 0.2]

    def word_of_leader(self) -> list[Any]:
        term = self.random.choice([1, 1, 1, 0, 2])
        ids = self.random.sample(LEASE_IDS, self.random.randint(0, 3))
        if self.random.random() < 0.5:
            return [EXPIRE_LEASES, 0, term, ids]
        return [CHECKPOINT_LEASES, 0, term, [[lease, self.random.choice([-5, 1, 700, 2500, 9000])] for lease in ids]]

    def key(self) -> bytes:
        return b"" if self.random.random() < 0.01 else self.random.choice(self.keys)

    def end(self) -> bytes:
        return self.random.choice([b"", b"", b"\0", self.key(), *ENDS[-3:]])

    def put(self) -> list[Any]:
        flags = self.random.choice([0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 6, 7])
        mistake = self.random.random() < 0.05
        lease = (
            self.random.choice([*LEASE_IDS[:2] * 3, *LEASE_IDS])
            if self.random.random() < 0.5 and (mistake or not flags & 4)
            else 0
        )
        value = b"" if flags & 2 and not mistake else self.random.choice(VALUES)
        return put(self.key(), value, flags=flags, lease=lease)

    def delete(self) -> list[Any]:
        return delete(self.key(), self.end(), flags=self.random.randrange(2))

    def txn(self, depth: int) -> list[Any]:
        compares = [self.compare() for _ in range(self.random.choice([0, 0, 1, 2]))]
        return txn(compares, *([self.operation(depth - 1) for _ in range(self.random.randint(0, 3))] for _ in range(2)))

    def read_txn(self) -> list[Any]:
        branches = [[self.ranged() for _ in range(self.random.randint(0, 2))] for _ in range(3)]
        branches[0].append(txn([self.compare()], branches.pop(), []))
        return [READ_TXN, 0, [self.compare()], *branches]

    def operation(self, depth: int) -> list[Any]:
        kind = self.random.randrange(5)
        if self.random.random() < 0.01:
            return []
        if kind == 0 and depth:
            return self.txn(depth)
        return self.ranged() if kind == 1 else self.delete() if kind == 2 else self.put()

    def compare(self) -> list[Any]:
        target = self.random.randrange(5)
        operand = self.random.choice(VALUES) if target == 3 else self.random.randint(-1, 6)
        return [self.random.randrange(4), target, self.key(), operand, self.end()]

    def ranged(self) -> list[Any]:
        chance = self.random
        bounds = (0, 0, 0, 0) if chance.random() < 0.7 else tuple(chance.choice([0, 0, 2, 4, 8, 30]) for _ in range(4))
        return ranged(
            self.key() if chance.random() < 0.5 else b"\0",
            self.end() if chance.random() < 0.5 else b"\0",
            flags=chance.choice([0, 0, 2, 4]),
            limit=chance.choice([0, 0, 1, 2, 4, -1]),
            revision=chance.choice([0, 0, 0, -3, *range(1, 16)]),
            order=chance.randrange(3),
            target=chance.randrange(5),
            bounds=bounds,  # type: ignore[arg-type]
        )


class FullDisk:
    """A keyspace that refuses the next commit, as a full disk does; everything else goes through."""

    def __init__(self, inner: Keyspace) -> None:
        self.inner = inner
        self.full = False

    def commit(self, changes: Any) -> None:
        if self.full:
            self.full = False
            list(changes)
            raise NoSpace()
        self.inner.commit(changes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Member:
    """One store with its keyspace, and what a daemon does with them."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self.names = count()
        self.path = "" if directory is None else str(directory / "store.mdb")
        self.disk = FullDisk(MemoryKeyspace() if directory is None else LmdbKeyspace.open(self.path, LIMITS))
        self.store = Store.open(self.disk, LIMITS)  # type: ignore[arg-type]
        self.job: CommitJob | None = None
        self.cursors: list[tuple[RangeCursor, Any, int]] = []

    def reopen(self, log: list[Entry], answers: list[Any], digests: list[int]) -> None:
        """Lose what was not committed, then apply it again: nothing may come out differently."""
        self.job, self.cursors = None, []
        if self.directory is not None:
            self.disk = FullDisk(LmdbKeyspace.open(self.path, LIMITS))
        self.store = Store.open(self.disk, LIMITS)  # type: ignore[arg-type]
        assert self.store.applied_index == self.store.durable_applied_index
        index = self.store.applied_index
        assert self.store.digest == (digests[index - 1] if index else 0)
        for entry in log[index:]:
            assert self.store.apply(entry) == answers[entry.index - 1]
            assert self.store.digest == digests[entry.index - 1]

    def replace_by_snapshot(self) -> None:
        """Make a snapshot, send it in odd chunks with repetitions, and put it in the store's place."""
        if self.directory is None:
            data, made = dump_memory(self.disk.inner)  # type: ignore[arg-type]
            received = SnapshotBytesReceiver(meta_of(made))
            _send(SnapshotBytesReader(data, meta_of(made)), received)
            self.disk = FullDisk(received.finish())
            return
        path = str(self.directory / f"snapshot-{next(self.names)}")
        made = write(self.path, path)
        assert made.index == self.store.durable_applied_index
        receiver = SnapshotReceiver(str(self.directory), meta_of(made))
        reader = SnapshotFileReader(path, meta_of(made))
        _send(reader, receiver)
        reader.close()
        self.store.close()
        install(receiver.finish(), self.path)


def _send(reader: Any, receiver: Any) -> None:
    offset = 0
    while data := reader.read(offset, 5000):
        assert receiver.write(offset + 1, data) == offset, "a gap is ignored"
        offset = receiver.write(offset, data)
        assert receiver.write(0, data[:10]) == offset, "a repetition is ignored"


class World:
    def __init__(self, directory: Path) -> None:
        self.members = [Member(directory), Member(None)]
        self.model = Model(window=4, ttl_ms=100, sessions_max=2, leases_max=4, lease_keys_max=2, operations_max=5)
        self.log: list[Entry] = []
        self.answers: list[Any] = []
        self.digests: list[int] = []

    def apply(self, after_ms: int, groups: list[Any]) -> None:
        time_ms = self.model.clock_ms + after_ms - 10
        drawn = [lease for lease in self.model.leases if lease not in LEASE_IDS]
        for command in (command for group in groups for command in group[5]):
            if command[0] == LEASE_REVOKE and command[2] == DRAWN:
                command[2] = drawn.pop() if drawn else 12345
        entry = Entry(len(self.log) + 1, 1, ENTRY_COMMANDS, encode_batch(max(0, time_ms), groups))
        self.log.append(entry)
        given_answers = [member.store.apply(entry) for member in self.members]
        assert given_answers[0] == given_answers[1]
        # Only the store knows which ids are drawn; no command of the same entry can name one.
        known = {*LEASE_IDS, *self.model.leases}
        self.model.drawn = [lease for lease in self.members[0].store.leases if lease not in known]
        expected = self.model.apply(max(0, time_ms), groups)
        assert not self.model.drawn
        assert [[_plain(answer) for answer in answers] for answers in given_answers[0]] == expected
        self.answers.append(given_answers[0])
        self.digests.append(self.members[0].store.digest)
        for member in self.members:
            assert member.store.digest == self.digests[-1]
            assert (member.store.revision, member.store.clock_ms) == (self.model.revision, self.model.clock_ms)
            assert member.store.sessions_count == len(self.model.sessions)
            deadlines = [session["deadline"] for session in self.model.sessions.values()]
            assert member.store.earliest_deadline_ms == min(deadlines, default=None)
            self.check_leases(member.store)
            self.check_members(member.store)

    def check_members(self, store: Store) -> None:
        known = [{"id": node_id, **self.model.members[node_id]} for node_id in sorted(self.model.members)]
        assert [
            {name: member[name] for name in ("id", "name", "incarnation", "pending")} for member in store.members()
        ] == known
        assert (store.cluster_id, store.removed_members()) == (self.model.cluster_id, self.model.removed)
        assert store.full_members == self.model.full

    def check_leases(self, store: Store) -> None:
        leases = store.leases
        assert leases.ids() == sorted(self.model.leases)
        keys: dict[int, set[bytes]] = {lease: set() for lease in self.model.leases}
        for key, value in self.model.history[self.model.revision].items():
            if value[3]:
                keys[value[3]].add(key)
        for lease_id, times in self.model.leases.items():
            lease = leases.get(lease_id)
            assert lease is not None
            assert [lease.ttl_ms, lease.remaining_ms] == times
            assert lease.keys == keys[lease_id]

    def on_member(self, name: str, member: Member) -> None:
        job = member.job
        if name == "cycle":
            for part in ("freeze", "run", "thaw"):
                self.on_member(part, member)
        elif name == "compact":
            member.store.compaction.step()
        elif name == "freeze" and job is None:
            member.job = member.store.freeze()
        elif name in ("run", "full") and job is not None and not job.committed:
            member.disk.full = name == "full"
            try:
                job.run()
            except NoSpace:
                assert name == "full"
                member.store.thaw(job)
                member.job = None
        elif name == "thaw" and job is not None and job.committed:
            member.store.thaw(job)
            assert member.store.durable_applied_index == job.applied_index
            member.job = None
        elif name == "restart":
            member.store.close()
            member.reopen(self.log, self.answers, self.digests)
        elif name == "snapshot" and job is None:
            member.replace_by_snapshot()
            member.reopen(self.log, self.answers, self.digests)

    def read(self, command: list[Any]) -> None:
        expected = _model_read(self.model, command)
        for member in self.members:
            assert _store_read(member.store, command) == expected

    def begin(self, command: list[Any]) -> None:
        expected = _model_read(self.model, command)
        for member in self.members:
            if not isinstance(expected, str):
                revision = command[5] if command[5] > 0 else self.model.revision
                member.cursors.append((member.store.range_cursor(command), expected, revision))

    def advance_cursors(self) -> None:
        """One step of every range on its way: what was written since it began must not show."""
        for member in self.members:
            for cursor, expected, revision in list(member.cursors):
                try:
                    done = cursor.step()
                except Compacted:
                    assert revision < self.model.compacted
                    member.cursors.remove((cursor, expected, revision))
                    continue
                if done:
                    assert cursor.answer() == expected
                    member.cursors.remove((cursor, expected, revision))

    def compact_whole(self) -> None:
        """Whatever was under way; then nothing that is hidden is left, and nothing that is visible is gone."""
        for member in self.members:
            for part in ("run", "thaw"):
                self.on_member(part, member)
            for _ in range(3):
                self.on_member("cycle", member)
                while member.store.compaction.has_work:
                    member.store.compaction.step()
                    if not member.store.compaction.has_work:
                        self.on_member("cycle", member)
            assert max(member.store.compaction.done, 1) == max(self.model.compacted, 1)
            check_nothing_hidden_is_left(member.disk.inner, self.model)

    def check_everything(self) -> None:
        self.read([LEASES, 0])
        for member in self.members:
            self.check_leases(member.store)
        for revision in range(1, self.model.revision + 1):
            self.read(ranged(revision=revision))
            self.read(ranged(revision=revision, flags=4))
        for key in KEYS:
            for member in self.members:
                assert member.store.read(get(key)) == self.model.read(get(key))


def check_nothing_hidden_is_left(keyspace: Keyspace, model: Model) -> None:
    """LOG and PAST agree, and hold of the time before the compacted revision only what is visible at it."""
    events = {
        event[:POSITION_BYTES]: event
        for _, page in keyspace.window(LOG, b"\0", None, 10**6, 10**9).items
        for event in unpack_page(page)
    }
    visible = {(key, value[1]) for key, value in model.history[max(model.compacted, 1)].items()}
    for position, event in events.items():
        if revision_of(position) < model.compacted:
            assert (key_of(event), revision_of(position)) in visible
    pointers = [
        pointer
        for item in keyspace.window(PAST, b"\0", None, 10**6, 10**9).items
        for pointer in past.unpack_pointers(item)[1]
    ]
    assert {pointer[:POSITION_BYTES] for pointer in pointers} <= set(events)
    heads = {record[:POSITION_BYTES] for _, record in keyspace.window(HEAD, b"\0", None, 10**6, 10**9).items}
    assert set(events) == heads | {pointer[:POSITION_BYTES] for pointer in pointers}


def _plain(answer: Any) -> Any:
    return answer if answer[0] == 0 else answer[1]


def _model_read(model: Model, command: list[Any]) -> Any:
    try:
        if command[0] == RANGE:
            check_shape(command, 0)
        if command[0] == READ_TXN:
            check_shape([TXN, *command[1:]], model.operations_max)
        return model.read(command)
    except Refused as error:
        return str(error)


def _store_read(store: Store, command: list[Any]) -> Any:
    try:
        answer = store.read(command)
        return [*answer[:2], sorted(answer[2])] if command[0] == LEASES else answer
    except RaftKVError as error:
        return error.code


@pytest.fixture(autouse=True)
def _tiny_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "HEAD_ITEMS_PER_STEP", 3)
    monkeypatch.setattr(ranges, "PAST_ITEMS_PER_STEP", 2)
    monkeypatch.setattr(ranges, "KEYS_PER_STEP", 2)
    monkeypatch.setattr(mvcc, "_SLICE_BYTES_MAX", 700)
    monkeypatch.setattr(past, "_POINTERS_MAX", 2)
    monkeypatch.setattr(pages, "PAGE_EVENTS_MAX", 3)
    monkeypatch.setattr(overlay, "_FRESH_MAX", 2)
    monkeypatch.setattr(compaction, "WALK_ITEMS", 3)
    monkeypatch.setattr(compaction, "PAGES_PER_STEP", 2)
    monkeypatch.setattr(compaction, "ROUND_EVENTS_MAX", 4)
    monkeypatch.setattr(compaction, "CHANGES_BYTES_MAX", 300)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@example(seed=1203, length=41)  # a commit between two steps of compaction hid that a version was superseded in time
@given(seed=st.integers(0, 2**48), length=st.integers(10, 60))
def test_members_answer_as_the_model_whatever_is_committed_and_lost(seed: int, length: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="raftkv-store-"))
    world = World(directory)
    try:
        for name, *arguments in Teller(seed).story(length):
            if name == "apply":
                world.apply(*arguments)
            elif name == "read":
                world.read(arguments[0])
            elif name == "begin":
                world.begin(arguments[0])
            else:
                world.on_member(name, world.members[arguments[0]])
            world.advance_cursors()
        while any(member.cursors for member in world.members):
            world.advance_cursors()
        world.check_everything()
        world.compact_whole()
        world.check_everything()
    finally:
        for member in world.members:
            member.store.close()
        shutil.rmtree(directory)
