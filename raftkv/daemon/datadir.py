"""The data directory of one member: its layout, its lock, and whose it is.

    wal/        the log (raftkv.wal)           snapshots/  snapshots being made or received
    store/      the key-value store (LMDB)     LOCK        held by the process that uses the directory, with its pid

Two processes on one directory would each believe what the other overwrites; a directory of another member would vote with
somebody else's memory. Both are refused in one line that says what to do. Whatever ends in `.tmp` is unfinished, of a process
that died, and is removed once the lock is held.
"""

import fcntl
import logging
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final

from raftkv.errors import ConfigError, Corruption, DataDirectoryInUse, WrongDataDirectory
from raftkv.limits import Limits
from raftkv.units import NodeId
from raftkv.wal.disk import Disk, RealDisk
from raftkv.wal.record import Identity
from raftkv.wal.recovery import Recovered
from raftkv.wal.segment import ADVICE
from raftkv.wal.wal import Wal

log = logging.getLogger("raftkv")

LOCK_NAME: Final = "LOCK"
STORE_NAME: Final = "store.lmdb"
TEMPORARY_SUFFIX: Final = ".tmp"


class DataDirectory:
    """A directory made, locked and cleaned up. `close` (or `with`) gives the lock back, and so does the end of the process."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises DataDirectoryInUse, and ConfigError for a path that cannot be used."""
        self.path = Path(path)
        self.wal_path = self.path / "wal"
        self.store_path = self.path / "store"
        self.store_file = self.store_path / STORE_NAME
        self.snapshots_path = self.path / "snapshots"
        self._lock_descriptor: int | None = None
        try:
            self._make_layout()
            self._lock_descriptor = self._lock()
            self._remove_temporary()
        except OSError as error:
            self.close()
            raise ConfigError(f"the data directory {self.path} cannot be used: {error}") from error

    def close(self) -> None:
        """Give the lock back. The file stays: to remove it would let two processes lock two files of one name."""
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def __enter__(self) -> "DataDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def is_new(self, disk: Disk | None = None) -> bool:
        """Whether no member lives here yet.

        Raises Corruption when there is a store but no log: a member that forgot its votes must not vote again. On a first start
        make the log before the store, or a crash between them looks like that.
        """
        assert self._lock_descriptor is not None, "only the owner of the lock may conclude anything"
        if Wal.exists(disk or RealDisk(), str(self.wal_path)):
            return False
        if any(self.store_path.iterdir()):
            raise Corruption(
                f"{self.store_path} holds a store, but {self.wal_path} no log: {ADVICE}",
                details={"file": str(self.wal_path), "offset": 0, "advice": ADVICE},
            )
        return True

    def check_identity(self, stored: Identity, *, cluster_name: str, name: str, node_id: NodeId | None = None) -> None:
        """Compare whose directory this is with who was configured. Raises WrongDataDirectory."""
        if (stored.cluster_name, stored.name) != (cluster_name, name):
            raise WrongDataDirectory(
                f"the data directory {self.path} belongs to member {stored.name!r} of cluster {stored.cluster_name!r}, not to"
                f" member {name!r} of cluster {cluster_name!r}: start it with --name {stored.name} --cluster-name"
                f" {stored.cluster_name}, or choose another --data-dir"
            )
        if node_id is not None and stored.node_id != node_id:
            raise WrongDataDirectory(
                f"the data directory {self.path} belongs to node id {stored.node_id:x} (member {stored.name!r} of cluster"
                f" {stored.cluster_name!r}), not to node id {node_id:x}: the member was removed and added anew since, so delete"
                f" the directory or choose another --data-dir"
            )

    def free_bytes(self) -> int:
        """What may still be written to the file system of the directory."""
        figures = os.statvfs(self.path)
        return figures.f_bavail * figures.f_frsize

    def _make_layout(self) -> None:
        disk = RealDisk()
        missing = [self.path]
        while not missing[-1].parent.exists():
            missing.append(missing[-1].parent)
        for directory in (*reversed(missing), self.wal_path, self.store_path, self.snapshots_path):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
                disk.sync_directory(str(directory.parent))

    def _lock(self) -> int:
        descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryInUse(
                f"the data directory {self.path} is in use by process {holder}: stop that one, or choose another --data-dir",
                details={"path": str(self.path), "pid": holder},
            ) from error
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def open_log(self, identity: Identity, limits: Limits) -> tuple[Wal, Recovered]:
        """The log of the member that lives here, a new one on an empty directory. Raises Corruption, WrongDataDirectory."""
        disk, path = RealDisk(), str(self.wal_path)
        if self.is_new(disk):
            Wal.create(disk, path, identity, limits).close()
        wal, recovered = Wal.open(disk, path, limits)
        self.check_identity(
            recovered.identity, cluster_name=identity.cluster_name, name=identity.name, node_id=identity.node_id
        )
        if recovered.cut_bytes:
            log.warning("cut %d bytes of an unfinished write from the end of the log", recovered.cut_bytes)
        return wal, recovered

    def _remove_temporary(self) -> None:
        for directory in (self.path, self.wal_path, self.store_path, self.snapshots_path):
            for leftover in [
                *directory.glob("*" + TEMPORARY_SUFFIX),
                *directory.glob("*" + TEMPORARY_SUFFIX + "-lock"),
            ]:
                if leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()


__all__ = ["LOCK_NAME", "TEMPORARY_SUFFIX", "DataDirectory"]
