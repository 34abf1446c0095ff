"""Waiting with a deadline: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.waiting import DeadlinePassed, holds_for, wait_until

__all__ = ["DeadlinePassed", "holds_for", "wait_until"]
