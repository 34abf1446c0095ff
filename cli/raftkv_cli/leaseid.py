"""Lease ids as text: hexadecimal, as etcdctl shows them, so that what the one prints the other takes.

A file of its own because `put` needs it, and may not import a whole verb for it.
"""


def lease_name(lease_id: int) -> str:
    """As etcdctl shows it."""
    return f"{lease_id:016x}"


def parse_lease(text: str) -> int:
    """A converter for an id in hexadecimal."""
    try:
        lease_id = int(text, 16)
    except ValueError:
        raise ValueError("is no lease id in hexadecimal") from None
    if not lease_id or not -(2**63) <= lease_id < 2**63:
        raise ValueError("is no lease id: 64 bits and not 0")
    return lease_id
