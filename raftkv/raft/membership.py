"""Configurations in the log (chapter 4): their encoding, and which one counts.

A configuration takes effect when its entry is appended, not when it is committed (4.1), so a truncated entry takes its
configuration back. `History` therefore remembers the configurations of the entries that are still in the log and the
one before them. The requests that make new configurations are in changes.py.
"""

from typing import TYPE_CHECKING, Final, Sequence

import msgpack

from raftkv.errors import Corruption
from raftkv.raft.messages import ENTRY_CONFIGURATION, Configuration, Entry
from raftkv.raft.progress import Progress
from raftkv.units import Index

if TYPE_CHECKING:
    from raftkv.raft.state import State

CONFIGURATION_VERSION: Final = 1


def encode_configuration(configuration: Configuration) -> bytes:
    """The data of an ENTRY_CONFIGURATION: sorted, so that equal configurations have equal bytes."""
    data: bytes = msgpack.packb(
        [
            CONFIGURATION_VERSION,
            sorted(configuration.voters),
            sorted(configuration.voters_outgoing),
            sorted(configuration.learners),
            sorted(configuration.learners_next),
            configuration.auto_leave,
        ]
    )
    return data


def decode_configuration(data: bytes) -> Configuration:
    """Undo encode_configuration. Raises Corruption for bytes that this member does not understand: it must not guess."""
    try:
        version, voters, outgoing, learners, learners_next, auto_leave = msgpack.unpackb(data)
        configuration = Configuration(
            frozenset(voters), frozenset(outgoing), frozenset(learners), frozenset(learners_next), bool(auto_leave)
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Corruption(f"a configuration entry cannot be decoded: {error}") from error
    if version != CONFIGURATION_VERSION:
        raise Corruption(f"configuration has version {version}, this member knows {CONFIGURATION_VERSION}: upgrade it")
    if not configuration.voters:
        raise Corruption("a configuration entry names no voters")
    return configuration


def leave_joint(configuration: Configuration) -> Configuration:
    """The configuration after a joint one (4.3)."""
    assert configuration.voters_outgoing, "only a joint configuration is left (4.3)"
    return Configuration(configuration.voters, learners=configuration.learners | configuration.learners_next)


class History:
    """The configurations of the log, oldest first; the last one counts."""

    __slots__ = ("_entries",)

    def __init__(self, index: Index, configuration: Configuration) -> None:
        self._entries: list[tuple[Index, Configuration]] = [(index, configuration)]

    @property
    def latest(self) -> Configuration:
        return self._entries[-1][1]

    @property
    def latest_index(self) -> Index:
        """The index of the entry that brought the latest configuration."""
        return self._entries[-1][0]

    def possible(self, commit_index: Index) -> list[Configuration]:
        """The newest committed configuration and all after it: one of them is in force in the cluster."""
        entries = self._entries
        first = max((at for at, (index, _) in enumerate(entries) if index <= commit_index), default=0)
        return [configuration for _, configuration in entries[first:]]

    def at(self, index: Index) -> Configuration:
        """The one that counted when the log ended at `index`, which is held or the last compacted one."""
        return next((configuration for i, configuration in reversed(self._entries) if i <= index), self._entries[0][1])

    def append(self, index: Index, configuration: Configuration) -> None:
        assert index > self.latest_index, "configurations follow the order of the log (4.1)"
        self._entries.append((index, configuration))

    def truncate_from(self, index: Index) -> bool:
        """Entries from `index` on are gone. True when another configuration counts now."""
        before = len(self._entries)
        while self._entries[-1][0] >= index:
            self._entries.pop()
            assert self._entries, "the committed configuration is never rolled back (4.1)"
        return len(self._entries) != before

    def compact(self, index: Index) -> None:
        """Entries up to `index` are committed and gone; the configuration as of `index` stays."""
        while len(self._entries) > 1 and self._entries[1][0] <= index:
            del self._entries[0]

    def restore(self, index: Index, configuration: Configuration, *, suffix_kept: bool) -> None:
        """A snapshot brings the configuration as of `index`; those of a kept suffix stay on top of it."""
        kept = [item for item in self._entries if item[0] > index] if suffix_kept else []
        self._entries = [(index, configuration), *kept]


def on_appended(state: "State", entries: Sequence[Entry]) -> None:
    """Put the configurations among freshly appended entries into effect (4.1)."""
    for entry in entries:
        if entry.kind == ENTRY_CONFIGURATION:
            state.history.append(entry.index, decode_configuration(entry.data))
            adopt_latest(state)


def on_truncated(state: "State", index: Index) -> None:
    """Entries from `index` on were replaced: fall back to the configuration before them."""
    if state.history.truncate_from(index):
        adopt_latest(state)


def adopt_latest(state: "State") -> None:
    """Act by the latest configuration of the log: whom to count, whom to send to."""
    configuration = state.history.latest
    state.configuration = configuration
    state.dirty = True
    if not state.is_leader:
        return
    state.reads.lease_until_ms = 0  # those who promised may be no majority any more: the next round asks again (6.4.1)
    members = configuration.members()
    for node_id in [peer for peer in state.progress if peer not in members]:
        del state.progress[node_id]
    for node_id in sorted(members - state.progress.keys() - {state.node_id}):
        state.progress[node_id] = Progress(node_id, state.log.last_index + 1, state.ticks)
    if state.transfer is not None and state.transfer.target not in configuration.voters:
        state.transfer = None
