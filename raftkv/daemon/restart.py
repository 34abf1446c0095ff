"""Where a member goes on after a restart: log and store brought together. Pure, so that the simulator restarts by the same rules.

The store may be behind the log, which is the rule: the rest is applied again from there. It may be ahead of the log only after a
received snapshot was swapped in and the process died before the log heard of it; then the log goes on from the snapshot.
"""

import logging

from raftkv.errors import Corruption
from raftkv.raft.config import SavedState
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import Configuration, SnapshotMeta
from raftkv.store.store import Store
from raftkv.units import Index, Term
from raftkv.wal.recovery import Recovered
from raftkv.wal.wal import Wal

log = logging.getLogger("raftkv")


def bring_together(wal: Wal, recovered: Recovered, store: Store, initial: Configuration) -> SavedState:
    """What the core starts from; the log is durable up to it on return. `initial` counts until the log names a configuration.

    Raises Corruption when entries are missing between store and log, NoSpace, DiskFailure.
    """
    start_index, start_term = recovered.log_start_index, recovered.log_start_term
    entries = recovered.entries
    if store.applied_index < start_index:
        raise Corruption(
            f"the store ends at index {store.applied_index}, the log begins after {start_index}: remove the member,"
            " delete its data directory, add it anew"
        )
    configuration = decode_configuration(store.configuration) if store.configuration else initial
    if not _contains(recovered, store.applied_index, store.applied_term):
        # A received snapshot was swapped in, then the process died before the log heard of it.
        log.warning("the log ends before the store (index %d): it goes on from there", store.applied_index)
        start_index, start_term, entries = store.applied_index, store.applied_term, []
        wal.write(recovered.hard_state, [], SnapshotMeta(start_index, start_term, configuration))
        wal.sync()
    return SavedState(
        hard_state=recovered.hard_state,
        log_start_index=start_index,
        log_start_term=start_term,
        entries=entries,
        configuration=configuration,
        applied_index=store.applied_index,
    )


def _contains(recovered: Recovered, index: Index, term: Term) -> bool:
    """Whether the log agrees with a store that has applied `index` of `term`."""
    if index == recovered.log_start_index:
        return True
    position = index - recovered.log_start_index - 1
    return position < len(recovered.entries) and recovered.entries[position].term == term


__all__ = ["bring_together"]
