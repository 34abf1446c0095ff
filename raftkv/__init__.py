"""raftkv: a Raft consensus key-value store. This file is the front door of the client library.

`async with raftkv.connect("a:2379,b:2379") as kv:` or `with raftkv.Client("a:2379") as kv:`; see docs/client.md. Names are loaded when
they are first used: the command line must not wait for asyncio, nor the daemon for the client.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raftkv.client.keptlease import KeptLease
    from raftkv.client.keptlease_async import AsyncKeptLease
    from raftkv.client.results import (
        DeleteResult,
        GrantedLease,
        KeyValue,
        LeaseInfo,
        Member,
        PutResult,
        RangeResult,
        TxnResult,
    )
    from raftkv.client.tls import Tls
    from raftkv.client.txn import (
        CreateRevision,
        Delete,
        Get,
        Lease,
        ModRevision,
        Put,
        Range,
        Value,
        Version,
        exists,
        missing,
    )
    from raftkv.client.watch_verbs import WaitResult
    from raftkv.client.watchstate import Event, WatchBatch
    from raftkv.errors import FencingTokenStale, LockLost, NotAcquired, NotHeld, RaftKVError, WatchCompacted
    from raftkv.recipes.clients import Client
    from raftkv.recipes.clients_async import AsyncClient, connect

__version__ = "0.1.0"

_HOME = {
    "connect": "raftkv.recipes.clients_async",
    "AsyncClient": "raftkv.recipes.clients_async",
    "Client": "raftkv.recipes.clients",
    **dict.fromkeys(
        ("RaftKVError", "WatchCompacted", "FencingTokenStale", "NotAcquired", "LockLost", "NotHeld"), "raftkv.errors"
    ),
    "Event": "raftkv.client.watchstate",
    "WatchBatch": "raftkv.client.watchstate",
    "WaitResult": "raftkv.client.watch_verbs",
    "KeptLease": "raftkv.client.keptlease",
    "AsyncKeptLease": "raftkv.client.keptlease_async",
    "Tls": "raftkv.client.tls",
    **dict.fromkeys(
        ("KeyValue", "PutResult", "DeleteResult", "RangeResult", "TxnResult", "Member", "GrantedLease", "LeaseInfo"),
        "raftkv.client.results",
    ),
    **dict.fromkeys(
        ("Value", "Version", "CreateRevision", "ModRevision", "Lease", "exists", "missing"), "raftkv.client.txn"
    ),
    **dict.fromkeys(("Put", "Delete", "Get", "Range"), "raftkv.client.txn"),
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'raftkv' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])


__all__ = [
    "connect",
    "Client",
    "AsyncClient",
    "KeyValue",
    "PutResult",
    "DeleteResult",
    "RangeResult",
    "TxnResult",
    "Member",
    "Event",
    "WatchBatch",
    "WaitResult",
    "WatchCompacted",
    "GrantedLease",
    "LeaseInfo",
    "Tls",
    "KeptLease",
    "AsyncKeptLease",
    "Value",
    "Version",
    "CreateRevision",
    "ModRevision",
    "Lease",
    "exists",
    "missing",
    "Put",
    "Delete",
    "Get",
    "Range",
    "RaftKVError",
    "FencingTokenStale",
    "NotAcquired",
    "LockLost",
    "NotHeld",
    "__version__",
]
