"""Names for the integers that consensus and storage pass around.

Plain aliases, not NewTypes: the hot path adds and compares these millions of times a second, and a wrapper call per
arithmetic step costs more than the confusion it would prevent. The names in signatures are the documentation.
"""

from typing import TypeAlias

NodeId: TypeAlias = int
"""A member of the cluster: 63 random or derived bits, never 0 (0 means nobody)."""

Term: TypeAlias = int
"""A Raft term, 0 before the first election (dissertation 3.3)."""

Index: TypeAlias = int
"""A position in the replicated log; the first entry has index 1 (dissertation 3.5)."""

Revision: TypeAlias = int
"""A revision of the store, as in etcd: 1 when empty, so the first write makes revision 2."""

Milliseconds: TypeAlias = int
"""A duration or a reading of a monotonic clock, in ms."""

NOBODY: NodeId = 0
"""No member: no vote given, or no leader known."""
