"""Disks that fill up, fail or take long: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.disk import DiskFaultUnavailable, SmallDisk, SyncFault

__all__ = ["DiskFaultUnavailable", "SmallDisk", "SyncFault"]
