"""Hosts and cables in network namespaces: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.netns import CLIENTS, NamespacesUnavailable, Network

__all__ = ["CLIENTS", "NamespacesUnavailable", "Network"]
