"""One member: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.node import Node

__all__ = ["Node"]
