"""PyTorch on raftkv: a Store, the `raftkv://` init method, and the torchrun rendezvous backend (docs/torch.md).

`import raftkv.torch` registers the init method; torchrun finds its backend by the entry point. torch is asked for where it is used: the proxy
(proxy.py) speaks TCPStore's wire protocol and needs none.
"""

from typing import Any

_HOME = {
    "RaftKVStore": "raftkv.torch.store",
    "rendezvous": "raftkv.torch.init_method",
    "Proxy": "raftkv.torch.proxy",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'raftkv.torch' has no attribute {name!r}")


def _register() -> None:
    try:
        from torch.distributed import is_available
        from torch.distributed.rendezvous import register_rendezvous_handler
    except ImportError:
        return  # the proxy alone is of use too
    if is_available():
        from raftkv.torch.init_method import SCHEME, rendezvous

        try:
            register_rendezvous_handler(SCHEME, rendezvous)
        except RuntimeError:
            pass  # somebody was first


_register()

__all__ = ["Proxy", "RaftKVStore", "rendezvous"]
