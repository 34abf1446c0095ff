"""The look at the machine: each check with figures on both sides of its bound, and the measuring itself on this machine."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from raftkv.daemon import preflight
from raftkv.daemon.preflight import Facts, Finding
from raftkv.errors import ConfigError
from raftkv.limits import DEFAULT_LIMITS, GIB, MIB, Limits

GOOD = Facts(
    open_files=65536,
    address_space_bytes=None,
    can_map=True,
    disk_free_bytes=100 * GIB,
    fsync_ms=[0.1, 0.2, 0.3],
    file_system="ext4",
    memory_bytes=None,
    swap_bytes=None,
)


def finding(name: str, facts: Facts) -> Finding:
    (found,) = [item for item in preflight.check(facts, DEFAULT_LIMITS) if item.name == name]
    return found


def test_a_good_machine_has_no_advice(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "raftkv.preflight"):
        findings = preflight.run_preflight("/nonexistent", DEFAULT_LIMITS, GOOD)
    assert all(found.ok for found in findings)
    assert [found.name for found in findings] == [
        "open files",
        "address space",
        "free disk",
        "fdatasync",
        "file system",
        "memory limit",
    ]
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 6
    assert "open files: 65536" in caplog.messages


@pytest.mark.parametrize(
    ("name", "facts", "figure", "advice"),
    [
        ("open files", replace(GOOD, open_files=1024), "1024", "room for about 768 clients: raise it to 10256"),
        (
            "address space",
            replace(GOOD, address_space_bytes=8 * GIB),
            "8.0 GiB",
            "maps 64.0 GiB, sparse: allow 66.0 GiB",
        ),
        ("address space", replace(GOOD, can_map=False), "64.0 GiB cannot be mapped", "ulimit -v unlimited"),
        ("free disk", replace(GOOD, disk_free_bytes=300 * MIB), "300 MiB", "the store may grow to 8.0 GiB"),
        ("fdatasync", replace(GOOD, fsync_ms=[5, 30, 40]), "median 30.00 ms, worst 40.00 ms of 3", "use a local SSD"),
        ("file system", replace(GOOD, file_system="tmpfs"), "tmpfs", "forgets everything at a restart"),
        ("file system", replace(GOOD, file_system="overlay"), "overlay", "mount a volume"),
        ("file system", replace(GOOD, file_system="nfs4"), "nfs4", "use a local disk"),
        ("file system", replace(GOOD, file_system="fuse.sshfs"), "fuse.sshfs", "use a local disk"),
        ("memory limit", replace(GOOD, memory_bytes=256 * MIB, swap_bytes=0), "256 MiB, no swap", "is killed when"),
        ("memory limit", replace(GOOD, memory_bytes=256 * MIB, swap_bytes=GIB), "256 MiB", "misses heartbeats"),
    ],
)
def test_what_is_too_small_says_the_figure_and_what_to_do(name: str, facts: Facts, figure: str, advice: str) -> None:
    found = finding(name, facts)
    assert not found.ok
    assert found.figure == figure
    assert advice in found.advice
    assert found.line() == f"{name}: {figure}; {found.advice}"
    assert "\n" not in found.line()
    assert sum(not item.ok for item in preflight.check(facts, DEFAULT_LIMITS)) == 1, "one bad figure, one finding"


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [
        ("open files", replace(GOOD, open_files=10_255), replace(GOOD, open_files=10_256)),
        ("open files", replace(GOOD, open_files=10_255), replace(GOOD, open_files=None)),
        (
            "address space",
            replace(GOOD, address_space_bytes=66 * GIB - 1),
            replace(GOOD, address_space_bytes=66 * GIB),
        ),
        ("free disk", replace(GOOD, disk_free_bytes=2 * GIB - 1), replace(GOOD, disk_free_bytes=2 * GIB)),
        ("fdatasync", replace(GOOD, fsync_ms=[10.1] * 3), replace(GOOD, fsync_ms=[10.0, 10.0, 500.0])),
        ("file system", replace(GOOD, file_system="ramfs"), replace(GOOD, file_system=None)),
        ("memory limit", replace(GOOD, memory_bytes=512 * MIB - 1), replace(GOOD, memory_bytes=512 * MIB)),
    ],
)
def test_the_bound_of_each_check(name: str, bad: Facts, good: Facts) -> None:
    assert not finding(name, bad).ok
    assert finding(name, good).ok


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (replace(GOOD, address_space_bytes=8 * GIB), "address space: 8.0 GiB; the store maps 64.0 GiB"),
        (replace(GOOD, can_map=False), "address space: 64.0 GiB cannot be mapped"),
        (replace(GOOD, open_files=256), "open files: 256"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(facts: Facts, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        preflight.run_preflight("/nonexistent", DEFAULT_LIMITS, facts)
    assert raised.value.message.startswith(what)
    assert "\n" not in raised.value.message


def test_what_works_badly_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    facts = replace(GOOD, open_files=1024, disk_free_bytes=0, fsync_ms=[99.0], file_system="tmpfs", memory_bytes=MIB)
    with caplog.at_level(logging.INFO, "raftkv.preflight"):
        preflight.run_preflight("/nonexistent", DEFAULT_LIMITS, facts)
    assert [record.levelno for record in caplog.records].count(logging.WARNING) == 5


def test_a_member_on_a_full_disk_may_start() -> None:
    assert not finding("free disk", replace(GOOD, disk_free_bytes=0)).fatal


def test_the_bounds_follow_the_limits() -> None:
    limits = Limits(map_bytes=GIB, client_connections_max=10)
    facts = replace(GOOD, address_space_bytes=3 * GIB, open_files=266)
    assert all(found.ok for found in preflight.check(facts, limits))


def test_a_finding_has_advice_exactly_when_something_is_wrong() -> None:
    with pytest.raises(AssertionError, match="advice where something is wrong"):
        Finding("x", False, "1")
    with pytest.raises(AssertionError, match="advice where something is wrong"):
        Finding("x", True, "1", "do this")
    with pytest.raises(AssertionError, match="what is fatal is not ok"):
        Finding("x", True, "1", fatal=True)


# Measuring.


def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    facts = preflight.measure(tmp_path, DEFAULT_LIMITS)
    assert len(facts.fsync_ms) == 9
    assert all(duration > 0 for duration in facts.fsync_ms)
    assert facts.disk_free_bytes > 0
    assert facts.file_system
    assert facts.can_map
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        preflight.measure(tmp_path / "absent", DEFAULT_LIMITS)


def test_a_very_slow_disk_is_measured_with_fewer_writes(tmp_path: Path) -> None:
    ticks = iter(range(100))
    assert preflight.time_fsyncs(tmp_path, lambda: float(next(ticks))) == [1000.0] * 3


def test_more_address_space_than_there_is_cannot_be_mapped() -> None:
    assert preflight.can_map(GIB)
    assert not preflight.can_map(2**62)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /dev/shm rw - tmpfs tmpfs rw
31 22 0:26 / /data rw,relatime shared:5 master:2 - nfs4 server:/export rw
32 31 0:27 / /data/raft\\040kv rw - xfs /dev/vdb rw
33 22 0:28 / /over rw - ext4 /dev/vdc rw
34 22 0:29 / /over rw - overlay overlay rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/dev/shm", "tmpfs"),
        ("/dev/shm/x", "tmpfs"),
        ("/dev/shmoo", "ext4"),
        ("/data/other", "nfs4"),
        ("/data/raft kv/n1", "xfs"),
        ("/over/x", "overlay"),
    ],
)
def test_the_file_system_of_a_path(path: str, expected: str) -> None:
    assert preflight.file_system_of(path, MOUNTS) == expected


def test_an_unknown_file_system_is_none() -> None:
    assert preflight.file_system_of("/x", "") is None


def reader(files: dict[str, str]) -> Callable[[str], str | None]:
    return files.get


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (None, None)),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/memory.max": "max\n"}, (None, None)),
        (
            {
                "/proc/self/cgroup": "0::/\n",
                "/sys/fs/cgroup/memory.max": "536870912\n",
                "/sys/fs/cgroup/memory.swap.max": "0\n",
            },
            (512 * MIB, 0),
        ),
        (
            {
                "/proc/self/cgroup": "0::/a/b\n",
                "/sys/fs/cgroup/a/memory.max": "1000\n",
                "/sys/fs/cgroup/a/b/memory.max": "2000\n",
                "/sys/fs/cgroup/a/b/memory.swap.max": "max\n",
            },
            (1000, None),
        ),
        ({"/proc/self/cgroup": "0::/../x\n", "/sys/fs/cgroup/x/memory.max": "7\n"}, (7, None)),
        (
            {
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n",
                "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "1500\n",
            },
            (1000, 500),
        ),
        ({"/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, (None, None)),
    ],
)
def test_memory_limits_of_control_groups(files: dict[str, str], expected: tuple[int | None, int | None]) -> None:
    assert preflight.memory_limits(reader(files)) == expected
