"""The proxy that loses replies: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.proxy import LossyProxy

__all__ = ["LossyProxy"]
