"""Apply against anything that msgpack can carry, and sessions against any order of retries.

Whatever is in a batch, apply gives an answer for every command, changes nothing for what is malformed, and does the same on
a second member. Whatever a client sends again, in whatever order, each of its writes counts once.
"""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from raftkv.errors import Corruption, RaftKVError
from raftkv.raft.messages import ENTRY_COMMANDS, Entry
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.wire.commands import CLIENT_WRITES, READS, SYSTEM_WRITES, encode_batch
from raftkv.wire.validate import validate
from tests.unit.store.stores import LIMITS, SESSION, Driver, get, increment

atoms = st.one_of(
    st.none() | st.booleans() | st.sampled_from([0, 0, 1, 2, 4, -1, 2**63, 2**64 - 1, -(2**63)]),
    st.sampled_from([b"", b"a", b"b", b"\0", b"12", SESSION, b"k" * 600, "", "text", 0.0]),
)
items = st.recursive(atoms, lambda inner: st.lists(inner, max_size=6), max_leaves=10)
shaped = st.builds(
    lambda operation, sequence, rest: [operation, sequence, *rest],
    st.sampled_from([*sorted(CLIENT_WRITES | SYSTEM_WRITES), 64, 65]),
    st.sampled_from([0, 0, 1, 2, 3]),
    st.lists(items, min_size=1, max_size=5),
)
groups = st.builds(
    lambda *parts: list(parts),
    *(items | st.just(SESSION), atoms, atoms, items, atoms, st.lists(items | shaped, max_size=4)),
)


@given(st.lists(st.lists(groups | items, max_size=3), max_size=4))
@example([[[None, None, None, None, None, [[0]]]]])
@example([[[[], None, None, None, None, [[0, 0]]]]])
@example([[[SESSION, None, 0, None, None, [[0, 0]]]]])
def test_apply_survives_whatever_is_in_a_batch(batches: list[list[Any]]) -> None:
    members = [Store.open(MemoryKeyspace(), LIMITS) for _ in range(2)]
    for index, batch in enumerate(batches, 1):
        data = encode_batch(0, batch)
        before = members[0].revision
        entry = Entry(index, 1, ENTRY_COMMANDS, data)
        try:
            answers = [members[0].apply(entry)]
        except Corruption:  # a word of a newer version, to which no answer is the right one: both stop
            assert any(_is_of_newer_version(command) for group in batch for command in _commands_of(group))
            with pytest.raises(Corruption):
                members[1].apply(entry)
            return
        answers.append(members[1].apply(entry))
        assert answers[0] == answers[1]
        assert members[0].digest == members[1].digest
        assert len(answers[0]) == len(batch)
        done = 0
        for group, given_answers in zip(batch, answers[0], strict=True):
            if not given_answers:
                continue
            for command, answer in zip(group[5], given_answers, strict=True):
                done += answer[0] == 0
                if not _is_valid(command):
                    assert answer[0] == 1
        assert members[0].revision <= before + done, "what is refused changes nothing"


def _commands_of(group: Any) -> list[Any]:
    return group[5] if type(group) is list and len(group) == 6 and type(group[5]) is list else []


def _is_of_newer_version(command: Any) -> bool:
    known = CLIENT_WRITES | SYSTEM_WRITES | READS
    return type(command) is list and bool(command) and type(command[0]) is int and command[0] not in known


def _is_valid(command: Any) -> bool:
    if type(command) is list and command and type(command[0]) is int and command[0] in SYSTEM_WRITES:
        return True  # checked by the member table
    try:
        validate(command, LIMITS)
    except RaftKVError:
        return False
    return True


@given(st.data())
def test_each_write_counts_once_however_often_it_is_sent(data: st.DataObject) -> None:
    driver = Driver(MemoryKeyspace())
    sent, acknowledged = 1, 1
    answers: dict[int, Any] = {}
    for _ in range(data.draw(st.integers(1, 30))):
        choice = data.draw(st.integers(0, 3))
        if choice == 0:
            sent = min(60, sent + data.draw(st.integers(1, 5)))
        elif choice == 1:
            received = acknowledged
            while received in answers:
                received += 1
            acknowledged = data.draw(st.integers(acknowledged, received))
        elif choice == 2 and driver.store.applied_index > driver.store.durable_applied_index:
            driver.commit()
            # A restart in the middle: the session is all that remembers.
            driver.store = Store.open(driver.store.keyspace, LIMITS)
        chosen = data.draw(st.lists(st.integers(1, sent), max_size=8))
        commands = [increment(b"n", 2**sequence, seq=sequence) for sequence in chosen]
        given_answers = driver.apply(*commands, session=SESSION, ack_below=acknowledged)
        for sequence, answer in zip(chosen, given_answers, strict=True):
            if sequence < acknowledged:
                assert answer[1] == "session_window"
            else:
                assert answer[0] == 0
                assert answers.setdefault(sequence, answer) == answer
    record = driver.store.read(get(b"n"))[2]
    total = int(record[5]) if record else 0
    assert total == sum(2**sequence for sequence in answers), "one bit per write that was answered, and no bit twice"
