"""What containers often have too small or too slow, checked before the member starts.

`measure` looks at the machine, the checks judge the figures, so that each check can be tried with any figure. Every finding
fits into one log line: the name, the figure, and what to do. Only what would surely fail later is fatal.
"""

import logging
import mmap
import os
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Final, Sequence

from raftkv.errors import ConfigError
from raftkv.limits import GIB, MIB, Limits
from raftkv.wal.disk import RealDisk

log = logging.getLogger("raftkv.preflight")

# Besides the connections: segments, the store, peers, listeners, snapshots.
_FILES_RESERVED: Final = 256
# Besides the map: interpreter, libraries, thread stacks, buffers.
_ADDRESS_SPACE_RESERVED_BYTES: Final = 2 * GIB
_DISK_FREE_BYTES_MIN: Final = 2 * GIB
_MEMORY_BYTES_MIN: Final = 512 * MIB
_FSYNC_MS_MAX: Final = 10.0
_FSYNC_WRITES: Final = 9
_FSYNC_WRITE_BYTES: Final = 4096
_FSYNC_BUDGET_S: Final = 2.0
_PROBE_NAME: Final = "preflight.tmp"

_FORGETFUL: Final = frozenset({"tmpfs", "ramfs"})
_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "afs", "lustre", "beegfs", "virtiofs"}
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `advice` is empty when it is ok."""

    name: str
    ok: bool
    figure: str
    advice: str = ""
    fatal: bool = False

    def __post_init__(self) -> None:
        assert self.ok == (not self.advice), "advice where something is wrong, and only there"
        assert not (self.ok and self.fatal), "what is fatal is not ok"

    def line(self) -> str:
        """For the log."""
        return f"{self.name}: {self.figure}" + ("" if self.ok else f"; {self.advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Figures of this machine. None means no limit, or not known."""

    open_files: int | None
    address_space_bytes: int | None
    can_map: bool
    disk_free_bytes: int
    fsync_ms: Sequence[float]
    file_system: str | None
    memory_bytes: int | None
    swap_bytes: int | None


def run_preflight(data_path: str | os.PathLike[str], limits: Limits, facts: Facts | None = None) -> list[Finding]:
    """Check this machine, or `facts`; log one line per finding.

    Raises ConfigError with the line of the first finding that the member cannot run with.
    """
    findings = check(facts or measure(data_path, limits), limits)
    for finding in findings:
        log.log(logging.INFO if finding.ok else logging.WARNING, "%s", finding.line())
    for finding in findings:
        if finding.fatal:
            raise ConfigError(finding.line())
    return findings


def check(facts: Facts, limits: Limits) -> list[Finding]:
    """Judge the figures."""
    return [
        check_open_files(facts.open_files, limits),
        check_address_space(facts.address_space_bytes, facts.can_map, limits),
        check_disk_free(facts.disk_free_bytes, limits),
        check_fsync(facts.fsync_ms),
        check_file_system(facts.file_system),
        check_memory(facts.memory_bytes, facts.swap_bytes),
    ]


def check_open_files(open_files: int | None, limits: Limits) -> Finding:
    name = "open files"
    if open_files is None:
        return Finding(name, True, "no limit")
    needed = limits.client_connections_max + _FILES_RESERVED
    if open_files >= needed:
        return Finding(name, True, str(open_files))
    fitting = max(0, open_files - _FILES_RESERVED)
    advice = (
        f"room for about {fitting} clients: raise it to {needed} (ulimit -n, LimitNOFILE=, docker --ulimit nofile=)"
    )
    return Finding(name, False, str(open_files), advice, fatal=fitting == 0)


def check_address_space(address_space_bytes: int | None, can_map: bool, limits: Limits) -> Finding:
    name = "address space"
    needed = limits.map_bytes + _ADDRESS_SPACE_RESERVED_BYTES
    advice = f"the store maps {_size(limits.map_bytes)}, sparse: allow {_size(needed)} (ulimit -v unlimited, LimitAS=infinity)"
    if address_space_bytes is not None and address_space_bytes < needed:
        return Finding(name, False, _size(address_space_bytes), advice, fatal=True)
    if not can_map:
        return Finding(name, False, f"{_size(limits.map_bytes)} cannot be mapped", advice, fatal=True)
    return Finding(name, True, "no limit" if address_space_bytes is None else _size(address_space_bytes))


def check_disk_free(free_bytes: int, limits: Limits) -> Finding:
    name = "free disk"
    if free_bytes >= max(_DISK_FREE_BYTES_MIN, 2 * limits.wal_segment_bytes):
        return Finding(name, True, _size(free_bytes))
    # Never fatal: a member on a full disk still serves reads and hands leadership over.
    advice = (
        f"writes stop when it is full; the store may grow to {_size(limits.quota_bytes)} and the log needs room besides"
    )
    return Finding(name, False, _size(free_bytes), advice)


def check_fsync(fsync_ms: Sequence[float]) -> Finding:
    assert fsync_ms, "at least one write was timed"
    median_ms = statistics.median(fsync_ms)
    figure = f"median {median_ms:.2f} ms, worst {max(fsync_ms):.2f} ms of {len(fsync_ms)}"
    if median_ms <= _FSYNC_MS_MAX:
        return Finding("fdatasync", True, figure)
    advice = f"every write waits for it, above {_FSYNC_MS_MAX:.0f} ms the cluster is slow: use a local SSD for the data directory"
    return Finding("fdatasync", False, figure, advice)


def check_file_system(file_system: str | None) -> Finding:
    name = "file system"
    if file_system is None:
        return Finding(name, True, "not known")
    advice = ""
    if file_system in _FORGETFUL:
        advice = (
            "it forgets everything at a restart, and a member that forgets breaks the cluster's promises: use a disk"
        )
    elif file_system == "overlay":
        advice = (
            "this is the container's own layer, which is lost with the container: mount a volume for the data directory"
        )
    elif file_system in _NETWORK or file_system.startswith("fuse"):
        advice = "locks, fsync and memory maps are not to be relied on over a network or FUSE: use a local disk"
    return Finding(name, not advice, file_system, advice)


def check_memory(memory_bytes: int | None, swap_bytes: int | None) -> Finding:
    name = "memory limit"
    if memory_bytes is None:
        return Finding(name, True, "none")
    swapless = swap_bytes == 0
    figure = _size(memory_bytes) + (", no swap" if swapless else "")
    if memory_bytes >= _MEMORY_BYTES_MIN:
        return Finding(name, True, figure)
    ends = "is killed when it reaches it" if swapless else "swaps, and so misses heartbeats, when it reaches it"
    return Finding(name, False, figure, f"the member {ends}: allow {_size(_MEMORY_BYTES_MIN)} or more")


def measure(data_path: str | os.PathLike[str], limits: Limits) -> Facts:
    """Look at this machine. Writes a little into `data_path`, which must exist. Raises ConfigError when that fails."""
    path = Path(data_path)
    try:
        fsync_ms = time_fsyncs(path, time.perf_counter)
        free_bytes = RealDisk().free_bytes(str(path))
    except OSError as error:
        raise ConfigError(f"the data directory {path} cannot be written: {error}") from error
    memory_bytes, swap_bytes = memory_limits(_read_text)
    return Facts(
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        address_space_bytes=_soft_limit(resource.RLIMIT_AS),
        can_map=can_map(limits.map_bytes),
        disk_free_bytes=free_bytes,
        fsync_ms=fsync_ms,
        file_system=file_system_of(os.path.realpath(path), _read_text("/proc/self/mountinfo") or ""),
        memory_bytes=memory_bytes,
        swap_bytes=swap_bytes,
    )


def time_fsyncs(directory: Path, clock_s: Callable[[], float]) -> list[float]:
    """Milliseconds that a few small writes took until durable; fewer of them on a very slow disk. Raises OSError."""
    probe = str(directory / _PROBE_NAME)
    disk = RealDisk()
    file = disk.open(probe, create=True)
    try:
        file.preallocate(_FSYNC_WRITES * _FSYNC_WRITE_BYTES)
        file.fdatasync()
        data = os.urandom(_FSYNC_WRITE_BYTES)
        durations_ms: list[float] = []
        for number in range(_FSYNC_WRITES):
            begin_s = clock_s()
            file.pwritev((data,), number * _FSYNC_WRITE_BYTES)
            file.fdatasync()
            durations_ms.append((clock_s() - begin_s) * 1000)
            if sum(durations_ms) > _FSYNC_BUDGET_S * 1000:
                break
        return durations_ms
    finally:
        file.close()
        disk.unlink(probe)


def can_map(size_bytes: int) -> bool:
    """Whether so much address space can be had in one piece; costs no memory."""
    try:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, OverflowError, ValueError, MemoryError):
        return False
    return True


def file_system_of(path: str, mountinfo: str) -> str | None:
    """The type of the file system that holds `path`, out of /proc/self/mountinfo (proc(5)); None when it does not say."""
    best_length, best_type = -1, None
    for line in mountinfo.splitlines():
        mounted, separator, described = line.partition(" - ")
        fields, described_fields = mounted.split(" "), described.split(" ")
        if not separator or len(fields) < 5 or not described_fields[0]:
            continue
        mount_point = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
        inside = path == mount_point or path.startswith(mount_point.rstrip("/") + "/")
        # Of two mounts on one point the later line is on top.
        if inside and len(mount_point) >= best_length:
            best_length, best_type = len(mount_point), described_fields[0]
    return best_type


def memory_limits(read_text: Callable[[str], str | None]) -> tuple[int | None, int | None]:
    """Memory and swap that the control group allows, in bytes: the tightest of it and those above it. Versions 2 and 1."""
    group = ""
    for line in (read_text("/proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            group = line[3:].rstrip("/")
    folders = ["/sys/fs/cgroup"]
    for part in group.split("/"):
        if part and part != "..":
            folders.append(f"{folders[-1]}/{part}")
    memory = [_limit(read_text(f"{folder}/memory.max")) for folder in folders]
    swap = [_limit(read_text(f"{folder}/memory.swap.max")) for folder in folders]
    memory_bytes = min((limit for limit in memory if limit is not None), default=None)
    if memory_bytes is not None:
        return memory_bytes, min((limit for limit in swap if limit is not None), default=None)
    version_1 = "/sys/fs/cgroup/memory/memory"
    memory_bytes = _limit(read_text(f"{version_1}.limit_in_bytes"))
    both_bytes = _limit(read_text(f"{version_1}.memsw.limit_in_bytes"))
    if memory_bytes is None or both_bytes is None:
        return memory_bytes, None
    return memory_bytes, max(0, both_bytes - memory_bytes)


def _limit(text: str | None) -> int | None:
    """A control group's figure. Version 1 writes "no limit" as a number near 2^63."""
    text = (text or "").strip()
    return int(text) if text.isdigit() and int(text) < 2**60 else None


def _soft_limit(which: int) -> int | None:
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _read_text(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except OSError:
        return None


def _size(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB" if size_bytes >= GIB else f"{size_bytes / MIB:.0f} MiB"


__all__ = ["Facts", "Finding", "check", "measure", "run_preflight"]
