"""The data directory: layout, one owner, left-overs, and whose it is. Each refusal is one line that says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv.daemon.datadir import DataDirectory
from raftkv.errors import ConfigError, Corruption, DataDirectoryInUse, RaftKVError, WrongDataDirectory
from raftkv.limits import Limits
from raftkv.wal.disk import RealDisk
from raftkv.wal.record import Identity
from raftkv.wal.wal import Wal

STORED = Identity(cluster_name="prod", node_id=7, name="n1", incarnation=5)

HOLD_THE_LOCK = """
import sys
from raftkv.daemon.datadir import DataDirectory
directory = DataDirectory(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def one_line(error: RaftKVError) -> str:
    assert "\n" not in error.message
    return error.message


def make_log(directory: DataDirectory) -> None:
    Wal.create(RealDisk(), str(directory.wal_path), STORED, Limits(wal_segment_bytes=4096)).close()


def test_the_layout_is_made_with_its_parents_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "n1"
    for _ in range(2):
        with DataDirectory(path) as directory:
            assert directory.path == path
            assert {entry.name for entry in path.iterdir()} == {"wal", "store", "snapshots", "LOCK"}
            assert directory.free_bytes() > 0
    assert path.stat().st_mode & 0o077 == 0, "values are nobody else's business"


def test_the_lock_names_its_owner(tmp_path: Path) -> None:
    with DataDirectory(tmp_path):
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"


def test_a_second_owner_is_refused_with_path_and_pid(tmp_path: Path) -> None:
    with DataDirectory(tmp_path), pytest.raises(DataDirectoryInUse) as raised:
        DataDirectory(tmp_path)
    message = one_line(raised.value)
    assert f"the data directory {tmp_path} is in use by process {os.getpid()}" in message
    assert "choose another --data-dir" in message
    DataDirectory(tmp_path).close()


def test_another_process_is_refused_until_the_owner_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(DataDirectoryInUse, match=f"in use by process {owner.pid}:"):
            DataDirectory(tmp_path)
        owner.kill()
        owner.wait(10)
    with DataDirectory(tmp_path):
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"


def test_a_refused_process_leaves_the_owners_files_alone(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        (directory.snapshots_path / "being-made.tmp").write_bytes(b"half")
        with pytest.raises(DataDirectoryInUse):
            DataDirectory(tmp_path)
        assert (directory.snapshots_path / "being-made.tmp").exists()
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"


def test_a_closed_directory_is_closed_once(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.close()
    directory.close()


def test_the_lock_is_not_inherited_by_programs_that_are_started(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    command = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"up\n"
        directory.close()
        DataDirectory(tmp_path).close()
        program.communicate()


def test_left_over_temporary_files_are_removed_and_nothing_else(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        folders = (tmp_path, directory.wal_path, directory.store_path, directory.snapshots_path)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "kept").touch()
    for folder in folders:
        (folder / "half.tmp").write_bytes(b"half")
        (folder / "half.tmp-lock").write_bytes(b"")
        (folder / "copy.tmp").mkdir()
        (folder / "copy.tmp" / "data.mdb").write_bytes(b"half")
        (folder / "link.tmp").symlink_to(outside)
        (folder / "kept.bin").write_bytes(b"whole")
    with DataDirectory(tmp_path):
        for folder in folders:
            assert not list(folder.glob("*.tmp*"))
            assert (folder / "kept.bin").read_bytes() == b"whole"
    assert (outside / "kept").exists(), "a link is removed, not what it names"


@pytest.mark.parametrize("below", ["", "n1"])
def test_a_path_that_is_a_file_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot be used") as raised:
        DataDirectory(tmp_path / "file" / below)
    assert "\n" not in raised.value.message


def test_a_directory_is_new_until_it_has_a_log(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        assert directory.is_new()
        make_log(directory)
        assert not directory.is_new()
        (directory.store_path / "data.mdb").touch()
        assert not directory.is_new()


def test_a_store_without_its_log_is_refused(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        (directory.store_path / "data.mdb").touch()
        with pytest.raises(Corruption, match=r"holds a store, but .*wal no log") as raised:
            directory.is_new()
    assert "remove this member from the cluster" in one_line(raised.value)


def test_the_right_identity_passes(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        directory.check_identity(STORED, cluster_name="prod", name="n1")
        directory.check_identity(STORED, cluster_name="prod", name="n1", node_id=7)


@pytest.mark.parametrize(("cluster_name", "name"), [("dev", "n1"), ("prod", "n2"), ("dev", "n2")])
def test_another_identity_is_refused_with_both_names(tmp_path: Path, cluster_name: str, name: str) -> None:
    with DataDirectory(tmp_path) as directory, pytest.raises(WrongDataDirectory) as raised:
        directory.check_identity(STORED, cluster_name=cluster_name, name=name)
    message = one_line(raised.value)
    assert "belongs to member 'n1' of cluster 'prod'" in message
    assert f"not to member {name!r} of cluster {cluster_name!r}" in message
    assert "start it with --name n1 --cluster-name prod, or choose another --data-dir" in message


def test_another_node_id_is_refused(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory, pytest.raises(WrongDataDirectory) as raised:
        directory.check_identity(STORED, cluster_name="prod", name="n1", node_id=255)
    assert "belongs to node id 7" in one_line(raised.value)
    assert "not to node id ff" in raised.value.message
