"""The limits that apply depends on, as values that are replicated with the cluster.

Apply must decide alike on every member, whatever a member's own configuration file says. So the first leader puts these
limits into CREATE_CLUSTER, the state machine keeps them, and a member's own limits only bound what is local to it. Here
and not in store/, because the proposer (replica/) needs them too and the two rooms do not see each other.
"""

from dataclasses import dataclass, fields
from typing import Any

from raftkv.limits import DEFAULT_LIMITS, Limits

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Bounds used by apply; the names and units are those of raftkv.limits.Limits."""

    key_bytes_max: int = DEFAULT_LIMITS.key_bytes_max
    value_bytes_max: int = DEFAULT_LIMITS.value_bytes_max
    request_bytes_max: int = DEFAULT_LIMITS.request_bytes_max
    txn_operations_max: int = DEFAULT_LIMITS.txn_operations_max
    range_reply_bytes_max: int = DEFAULT_LIMITS.range_reply_bytes_max
    session_window: int = DEFAULT_LIMITS.session_window
    session_answer_bytes_max: int = DEFAULT_LIMITS.session_answer_bytes_max
    sessions_max: int = DEFAULT_LIMITS.sessions_max
    session_ttl_ms: int = DEFAULT_LIMITS.session_ttl_ms
    leases_max: int = DEFAULT_LIMITS.leases_max
    lease_keys_max: int = DEFAULT_LIMITS.lease_keys_max
    lease_ttl_ms_min: int = DEFAULT_LIMITS.lease_ttl_ms_min
    lease_expiry_keys_max: int = DEFAULT_LIMITS.lease_expiry_keys_max
    pools_max: int = DEFAULT_LIMITS.pools_max
    pool_requests_max: int = DEFAULT_LIMITS.pool_requests_max
    users_max: int = DEFAULT_LIMITS.users_max
    roles_max: int = DEFAULT_LIMITS.roles_max
    role_permissions_max: int = DEFAULT_LIMITS.role_permissions_max

    def to_items(self) -> dict[str, int]:
        """As a plain mapping, for CREATE_CLUSTER."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def settings_of(limits: Limits) -> Settings:
    """The part of a member's limits that has to be replicated."""
    return Settings(**{field.name: getattr(limits, field.name) for field in fields(Settings)})


def settings_from(items: Any) -> Settings | None:
    """Undo to_items; None for anything that is no such mapping. A missing name has its default, an unknown one is ignored."""
    if type(items) is not dict:
        return None
    known = {field.name for field in fields(Settings)}
    chosen = {name: value for name, value in items.items() if name in known}
    if not all(type(value) is int and 0 < value <= _INT64_MAX for value in chosen.values()):
        return None
    return Settings(**chosen)
