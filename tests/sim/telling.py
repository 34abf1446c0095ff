"""How a world's story reads: one short line for each message, call and step, so that the eye finds the line that matters.

`35/2` is the entry 35 of term 2. What a client wrote is cut: values are padded to make messages large, not to be read.
"""

from dataclasses import fields
from typing import Any, Final

from raftkv.limits import DEFAULT_LIMITS
from raftkv.raft.messages import (
    ENTRY_COMMANDS,
    ENTRY_CONFIGURATION,
    AppendEntries,
    AppendEntriesResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshot,
    InstallSnapshotResponse,
    Message,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from raftkv.units import NOBODY, NodeId
from raftkv_jepsen.history import INFO, OK, Operation

from .knobs import Knobs

VALUE_CHARACTERS_MAX: Final = 40
KINDS: Final = {ENTRY_COMMANDS: "", ENTRY_CONFIGURATION: " configuration"}


def member(node_id: NodeId) -> str:
    return "nobody" if node_id == NOBODY else f"n{node_id}"


def cut(value: Any) -> str:
    """A value as far as it says something."""
    text = str(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}~"


def asked(operation: Operation) -> str:
    """A call as it leaves."""
    argument = "" if operation.argument is None else cut(operation.argument)
    return f"{operation.function} {operation.key} {argument}".rstrip()


def answered(operation: Operation) -> str:
    """What came of it, and since when it was under way."""
    if operation.outcome == OK:
        came = f"is told {cut(operation.result)}"
    else:
        came = f"gives up ({operation.error}), {'it may have happened' if operation.outcome == INFO else 'nothing happened'}"
    return f"{came}: {asked(operation)}, asked at {operation.invoked_ns / 1e9:.6f}"


def knobs(chosen: Knobs) -> str:
    """What the seed has drawn, as far as it differs from what is usual."""
    usual = Knobs()
    drawn = [
        f"{field.name}={_plain(getattr(chosen, field.name))}"
        for field in fields(Knobs)
        if field.name != "limits" and getattr(chosen, field.name) != getattr(usual, field.name)
    ]
    bounds = [
        f"{field.name}={getattr(chosen.limits, field.name)}"
        for field in fields(chosen.limits)
        if getattr(chosen.limits, field.name) != getattr(DEFAULT_LIMITS, field.name)
    ]
    return " ".join((*drawn, *bounds))


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def message(said: Message) -> str:
    """From whom, to whom, and what; every message names its term first."""
    return f"n{said.source} -> n{said.target}: term {said.term} {_WORDS[type(said)](said)}"


def _append(said: AppendEntries) -> str:
    entries = said.entries
    what = f" {_entries(entries)}" if entries else " nothing"
    return f"append{what} behind {said.previous_index}/{said.previous_term}, commit {said.commit_index}"


def _entries(entries: list[Entry]) -> str:
    """Runs of one term: 36..38/2 39/3, and how large they are."""
    runs: list[str] = []
    first = 0
    for position, entry in enumerate(entries):
        following = entries[position + 1] if position + 1 < len(entries) else None
        if following is not None and (following.term, following.kind) == (entry.term, entry.kind):
            continue
        span = f"{entries[first].index}..{entry.index}" if position > first else f"{entry.index}"
        runs.append(f"{span}/{entry.term}{KINDS.get(entry.kind, ' opening')}")
        first = position + 1
    return f"{', '.join(runs)} ({sum(len(entry.data) for entry in entries)} bytes)"


def _append_answer(said: AppendEntriesResponse) -> str:
    if said.rejected:
        return f"refuses what comes behind {said.match_index}: perhaps {said.hint_index}/{said.hint_term}"
    return f"accepts to {said.match_index}"


def _vote(said: RequestVote) -> str:
    what = "pre-vote" if said.pre_vote else "vote after a transfer" if said.transfer else "vote"
    return f"asks for a {what}, its log ends at {said.last_index}/{said.last_term}"


def _vote_answer(said: RequestVoteResponse) -> str:
    return f"{'grants' if said.granted else 'refuses'} {'a pre-vote' if said.pre_vote else 'its vote'}"


def _heartbeat(said: Heartbeat) -> str:
    return f"heartbeat {said.read_round}, commit {said.commit_index}"


def _heartbeat_answer(said: HeartbeatResponse) -> str:
    promise = f", promises {said.promise_ms} ms" if said.promise_ms else ""
    return f"answers heartbeat {said.read_round}{promise}"


def _snapshot(said: InstallSnapshot) -> str:
    meta, end = said.snapshot, said.offset + len(said.data)
    return f"snapshot of {meta.index}/{meta.term}: bytes {said.offset} to {end} of {meta.size_bytes}"


def _snapshot_answer(said: InstallSnapshotResponse) -> str:
    return "has installed the snapshot" if said.installed else f"has the snapshot up to byte {said.next_offset}"


def _read_index_answer(said: ReadIndexResponse) -> str:
    return f"read {said.context}: {f'safe at {said.index}' if said.index else 'refused'}"


_WORDS: Final[dict[type, Any]] = {
    AppendEntries: _append,
    AppendEntriesResponse: _append_answer,
    RequestVote: _vote,
    RequestVoteResponse: _vote_answer,
    Heartbeat: _heartbeat,
    HeartbeatResponse: _heartbeat_answer,
    InstallSnapshot: _snapshot,
    InstallSnapshotResponse: _snapshot_answer,
    TimeoutNow: lambda said: "take over",
    ReadIndex: lambda said: f"read {said.context}: where is it safe?",
    ReadIndexResponse: _read_index_answer,
}
