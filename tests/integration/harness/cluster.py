"""Clusters of real daemons: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.cluster import CLUSTER_NAME, SMALL_LOG, Cluster, ClusterOptions, Place

__all__ = ["CLUSTER_NAME", "Cluster", "ClusterOptions", "Place", "SMALL_LOG"]
