"""The raw connection to one member: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.native import ConnectionEnded, NativeConnection

__all__ = ["ConnectionEnded", "NativeConnection"]
