"""Who a call comes from: wire/identity.py, under the name that procedures know."""

from raftkv.wire.identity import ANYBODY, Caller

__all__ = ["ANYBODY", "Caller"]
