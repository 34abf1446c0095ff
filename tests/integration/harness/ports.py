"""Ports nobody else takes: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.ports import PortReservations

__all__ = ["PortReservations"]
