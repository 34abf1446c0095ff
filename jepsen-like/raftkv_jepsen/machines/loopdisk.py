"""A file system of a node's own: ext4 in a file on a loop mount, which can be filled up and can lose its power.

`lose_power` is the ioctl that ext4 has for exactly this test: it stops at once, without flushing its journal, so what was not
synced is gone at the next mount, whatever the page cache says. The journal would commit by itself every 5 s; here it waits 300 s.
"""

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

from raftkv_jepsen.machines.disk import DiskFaultUnavailable, Filler

EXT4_IOC_SHUTDOWN: Final = 0x8004587D
NO_LOG_FLUSH: Final = 2


class LoopDisk:
    """Mounted at `path` from the start to `close`."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        if os.geteuid() != 0:
            raise DiskFaultUnavailable("loop mounts need root")
        for tool in ("mkfs.ext4", "mount", "umount"):
            if shutil.which(tool) is None:
                raise DiskFaultUnavailable(f"{tool} is not installed")
        self.path = path
        self._image = path.with_suffix(".img")
        self._filler = Filler(path / "filler")
        self._is_mounted = False
        path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(size_bytes)
        try:
            _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))
            self._mount()
        except DiskFaultUnavailable:
            self.close()
            raise

    def _mount(self) -> None:
        _run("mount", "-o", "loop,commit=300", str(self._image), str(self.path))
        self._is_mounted = True

    def fill(self) -> None:
        """Takes every byte that is left."""
        self._filler.fill()

    def free(self) -> None:
        """Gives them back."""
        self._filler.free()

    def lose_power(self) -> None:
        """What was not synced is gone. Its users have to be dead before; it is mounted again afterwards."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)
        _run("umount", str(self.path))
        self._mount()

    def close(self) -> None:
        """Unmounts and removes it."""
        if self._is_mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)
            self._is_mounted = False
        self._image.unlink(missing_ok=True)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise DiskFaultUnavailable(f"{command[0]}: {done.stderr.strip()}")
