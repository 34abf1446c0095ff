"""Forced recovery, and restoring a backup: one survivor's data, or a file, becomes a new cluster of one member.

What the survivor has in its log counts, also what it does not know to be committed: an acknowledged write may be among it, and to lose
none of those comes before keeping out what nobody was told of. What only the lost members had is gone. Nothing here touches the old
directory but to repair its torn tail: the new one is built beside it, and takes its name at the end; the old one stays as a backup.
"""

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Iterator

from raftkv.daemon.datadir import DataDirectory
from raftkv.daemon.membership import Membership, load_membership, save_membership
from raftkv.errors import ConfigError, Corruption, NoSpace
from raftkv.limits import Limits
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import Configuration, HardState, SnapshotMeta
from raftkv.store.backup import extract, inspect
from raftkv.store.lmdb_keyspace import LmdbKeyspace, sync_directory
from raftkv.store.refound import refound
from raftkv.store.snapshot import write
from raftkv.store.store import Store
from raftkv.units import Index, Revision, Term
from raftkv.wal.disk import RealDisk
from raftkv.wal.record import Identity
from raftkv.wal.recovery import Recovered
from raftkv.wal.wal import Wal
from raftkv.wire.settings import settings_of

TERMS_SKIPPED: Final = 1  # the new log begins in a term of its own


@dataclass(frozen=True, slots=True)
class Survivor:
    """What a data directory holds, as far as an operator has to know. `members`: name and client address, this one excluded."""

    membership: Membership
    members: list[tuple[str, str]]
    voters: int
    last_index: Index
    commit_index: Index
    revision: Revision


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was made of it."""

    membership: Membership
    revision: Revision
    applied_index: Index
    backup: Path


def look(path: Path, limits: Limits) -> Survivor:
    """Read a data directory that no process uses. Raises ConfigError, DataDirectoryInUse, Corruption."""
    with _opened(path) as (membership, directory):
        wal, recovered = Wal.open(RealDisk(), str(directory.wal_path), limits)
        wal.close()
        store = Store.open(LmdbKeyspace.open(str(directory.store_file), limits), limits)
        try:
            members = [(member["name"], member["address"]) for member in store.members()]
            configuration = decode_configuration(store.configuration) if store.configuration else None
            voters = configuration.voters if configuration else membership.peers().keys()
            return Survivor(
                membership,
                [(name, address) for name, address in members if name != membership.name],
                len(voters),
                recovered.log_start_index + len(recovered.entries),
                max(recovered.hard_state.commit, store.applied_index),
                store.revision,
            )
        finally:
            store.close()


def recover(path: Path, limits: Limits) -> Recovery:
    """Make a data directory that of the only member of a new cluster; its old content is kept beside it.

    Raises ConfigError, DataDirectoryInUse, Corruption, NoSpace, DiskFailure; then the directory is what it was.
    """
    with _opened(path) as (membership, directory):
        fresh_path = path.with_name(f"{path.name}.recovering-{secrets.token_hex(4)}")
        with contextlib.closing(DataDirectory(fresh_path)) as fresh:
            recovery = _build(membership, directory, fresh, limits)
        backup = _free_name(path)
        os.rename(path, backup)
        os.rename(fresh_path, path)
        sync_directory(str(path.parent))
    return Recovery(recovery.membership, recovery.revision, recovery.applied_index, backup)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Membership, DataDirectory]]:
    if not path.is_dir():
        raise ConfigError(f"there is no data directory {path}")
    membership = load_membership(path)
    if membership is None:
        raise ConfigError(f"{path} is not the data directory of a member: it has no member.json")
    with contextlib.closing(DataDirectory(path)) as directory:
        if directory.is_new():
            raise ConfigError(f"{path} has no log: there is nothing to recover")
        yield membership, directory


def _build(membership: Membership, old: DataDirectory, fresh: DataDirectory, limits: Limits) -> Recovery:
    """The new directory's content, durable. The copy of the store takes in the rest of the old log."""
    write(str(old.store_file), str(fresh.store_file))
    sync_directory(str(fresh.store_path))
    wal, recovered = Wal.open(RealDisk(), str(old.wal_path), limits)
    wal.close()
    new = _new_membership(membership)
    keyspace = LmdbKeyspace.open(str(fresh.store_file), limits)
    try:
        index, term = _apply_rest(keyspace, recovered, limits)
        _refound(keyspace, new, limits)
        revision = Store.open(keyspace, limits).revision
    finally:
        keyspace.close()
    start = SnapshotMeta(index, term, Configuration(frozenset({new.node_id})))
    _begin_log(fresh, new, max(recovered.hard_state.term, term), start, limits)
    save_membership(fresh.path, new)
    return Recovery(new, revision, index, fresh.path)


def _new_membership(old: Membership) -> Membership:
    """Another member, of the same name, at the same place."""
    node_id = secrets.randbits(63) or 1
    own = next((address for name, address in old.initial_cluster.items() if name == old.name), "")
    return Membership(
        cluster_name=old.cluster_name,
        name=old.name,
        node_id=node_id,
        incarnation=secrets.randbits(62) or 1,
        initial_cluster={old.name: own},
        ids={old.name: node_id},
    )


def _apply_rest(keyspace: LmdbKeyspace, recovered: Recovered, limits: Limits) -> tuple[Index, Term]:
    """Everything that the log has beyond the store. Raises Corruption, NoSpace."""
    store = Store.open(keyspace, limits)
    if store.applied_index < recovered.log_start_index:
        raise Corruption(
            f"the store ends at index {store.applied_index}, the log begins after {recovered.log_start_index}"
        )
    for entry in recovered.entries:
        if entry.index <= store.applied_index:
            continue
        store.apply(entry)
        if not store.has_room:
            _commit(store)
    _commit(store)
    return store.applied_index, store.applied_term


def _commit(store: Store) -> None:
    job = store.freeze()
    if job is None:
        return
    job.run()
    store.thaw(job)
    if store.durable_applied_index != store.applied_index:
        raise NoSpace("the disk is full")


def _begin_log(fresh: DataDirectory, new: Membership, last_term: Term, start: SnapshotMeta, limits: Limits) -> None:
    identity = Identity(new.cluster_name, new.node_id, new.name, new.incarnation)
    wal = Wal.create(RealDisk(), str(fresh.wal_path), identity, limits)
    wal.write(HardState(last_term + TERMS_SKIPPED, 0, start.index), [], start)
    wal.sync()
    wal.close()


def restore(
    backup: Path, path: Path, *, name: str, cluster_name: str | None, limits: Limits, keep_users: bool = True
) -> Recovery:
    """Make a data directory out of a backup: a new cluster of one member. `cluster_name` None: as in the backup.

    Raises Corruption for a damaged backup, ConfigError for a directory that is not empty, NoSpace.
    """
    if path.exists() and any(path.iterdir()):
        raise ConfigError(f"{path} is not empty: choose another --data-dir")
    info = inspect(str(backup))
    building = path.with_name(f"{path.name}.restoring-{secrets.token_hex(4)}")
    with contextlib.closing(DataDirectory(building)) as fresh:
        extract(str(backup), str(fresh.store_file))
        node_id = secrets.randbits(63) or 1
        cluster = cluster_name or info.cluster_name
        new = Membership(cluster, name, node_id, secrets.randbits(62) or 1, {name: ""}, ids={name: node_id})
        keyspace = LmdbKeyspace.open(str(fresh.store_file), limits)
        try:
            store = Store.open(keyspace, limits)
            index, term = store.applied_index, store.applied_term
            _refound(keyspace, new, limits, keep_users=keep_users)
            revision = Store.open(keyspace, limits).revision
        finally:
            keyspace.close()
        start = SnapshotMeta(index, term, Configuration(frozenset({node_id})))
        _begin_log(fresh, new, term, start, limits)
        save_membership(fresh.path, new)
    if path.exists():
        path.rmdir()
    os.rename(building, path)
    sync_directory(str(path.parent))
    return Recovery(new, revision, index, backup)


def _refound(keyspace: LmdbKeyspace, new: Membership, limits: Limits, *, keep_users: bool = True) -> None:
    refound(
        keyspace,
        settings_of(limits),
        cluster_id=secrets.randbits(62) or 1,
        cluster_name=new.cluster_name,
        node_id=new.node_id,
        name=new.name,
        address=new.initial_cluster[new.name],
        keep_users=keep_users,
    )


def _free_name(path: Path) -> Path:
    number = 1
    while (backup := path.with_name(f"{path.name}.before-recovery-{number}")).exists():
        number += 1
    return backup


__all__ = ["Recovery", "Survivor", "look", "recover"]
