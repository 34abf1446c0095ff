"""`torchrun --rdzv-backend=raftkv --rdzv-endpoint=a:2379,b:2379 --rdzv-id=RUN`: the agents meet in the cluster, and so do their workers.

torch's own dynamic rendezvous decides (who is in, when a round begins); here is where its state lies: one key, written by compare-and-set on its
revision. A rendezvous alone would leave the workers with a TCPStore on the host of rank 0. Instead each agent opens a listener on its own
loopback that speaks TCPStore's protocol (proxy.py), and tells its workers that address: behind all of them is one round in the cluster.
"""

import asyncio
import os
import threading
from typing import Any, Callable, Final

from torch.distributed import PrefixStore
from torch.distributed.elastic.rendezvous.api import (
    RendezvousConnectionError,
    RendezvousHandler,
    RendezvousInfo,
    RendezvousParameters,
    RendezvousStateError,
    RendezvousStoreInfo,
)
from torch.distributed.elastic.rendezvous.dynamic_rendezvous import RendezvousBackend, Token, create_handler

from raftkv.client.txn import ModRevision, Put, missing
from raftkv.errors import RaftKVError
from raftkv.recipes.clients import Client
from raftkv.recipes.clients_async import connect
from raftkv.torch.proxy import Proxy
from raftkv.torch.store import RaftKVStore
from raftkv.torch.where import TTL_S, client_arguments

NAME: Final = "raftkv"
_ROUND_KEY: Final = "raftkv/round"


class RaftKVBackend(RendezvousBackend):
    """The state of one run's rendezvous: a key, and its revision as the token."""

    def __init__(self, client: Client, run_id: str) -> None:
        self._client = client
        self._key = f"rdzv-state/{run_id}"

    @property
    def name(self) -> str:
        return NAME

    def get_state(self) -> tuple[bytes, Token] | None:
        found = _told(lambda: self._client.get_kv(self._key))
        return None if found is None else (found.value, found.mod_revision)

    def set_state(self, state: bytes, token: Token | None = None) -> tuple[bytes, Token, bool] | None:
        condition = missing(self._key) if token is None else ModRevision(self._key) == int(token)
        done = _told(lambda: self._client.txn().if_(condition).then(Put(self._key, state)).commit())
        if done.succeeded:
            return state, done.revision, True
        found = self.get_state()
        return None if found is None else (*found, False)


def _told(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except RaftKVError as error:
        raise RendezvousConnectionError(f"the rendezvous state cannot be reached: {error}") from error


class RaftKVRendezvousHandler(RendezvousHandler):
    """torch's dynamic rendezvous, with a listener for the workers of each round."""

    def __init__(self, inner: RendezvousHandler, endpoints: str, ttl_s: float, client: dict[str, Any]) -> None:
        self._inner = inner
        self._endpoints = endpoints
        self._ttl_s = ttl_s
        self._client = client
        self._listener: _Listener | None = None

    def get_backend(self) -> str:
        return NAME

    @property
    def use_agent_store(self) -> bool:
        return os.getenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "0") != "1"

    def next_rendezvous(self) -> RendezvousInfo:
        """As torch's, and the address that the workers of this host are told."""
        info = self._inner.next_rendezvous()
        if info.rank == 0:
            info.store.set(_ROUND_KEY, os.urandom(8).hex())
        round_name = info.store.get(_ROUND_KEY).decode()
        self._close_listener()
        run_id = f"{self.get_run_id()}.{round_name}".replace("/", "_")
        self._listener = _Listener(self._endpoints, run_id, self._ttl_s, self._client)
        return RendezvousInfo(
            info.store, info.rank, info.world_size, RendezvousStoreInfo("127.0.0.1", self._listener.port)
        )

    def is_closed(self) -> bool:
        return bool(self._inner.is_closed())

    def set_closed(self) -> None:
        self._inner.set_closed()

    def num_nodes_waiting(self) -> int:
        return int(self._inner.num_nodes_waiting())

    def get_run_id(self) -> str:
        return str(self._inner.get_run_id())

    def shutdown(self) -> bool:
        self._close_listener()
        return bool(self._inner.shutdown())

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()


class _Listener:
    """A proxy in a thread of its own: the agent blocks for as long as its workers run."""

    def __init__(self, endpoints: str, run_id: str, ttl_s: float, client: dict[str, Any]) -> None:
        self.port = 0
        self._error: BaseException | None = None
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(endpoints, run_id, ttl_s, client), name="raftkv-tcpstore", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            raise RendezvousConnectionError(f"no listener for the workers: {self._error}") from self._error

    def _run(self, endpoints: str, run_id: str, ttl_s: float, client: dict[str, Any]) -> None:
        try:
            self._loop.run_until_complete(self._serve(endpoints, run_id, ttl_s, client))
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self, endpoints: str, run_id: str, ttl_s: float, client: dict[str, Any]) -> None:
        async with (
            connect(endpoints, **client) as kv,
            kv.rendezvous(run_id, 0, ttl=ttl_s) as store,
            Proxy(store) as proxy,
        ):
            self.port = proxy.port
            self._ready.set()
            await self._stop.wait()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)


def create(params: RendezvousParameters) -> RendezvousHandler:
    """What torchrun calls; --rdzv-conf may have ttl, client_timeout, cluster_name, tls, ca_file, cert_file, key_file, user, password."""
    config = {name: str(value) for name, value in params.config.items()}
    ttl_s = float(config.pop("ttl", TTL_S))
    user, password = config.pop("user", ""), config.pop("password", "")
    known = ("client_timeout", "cluster_name", "tls", "ca_file", "cert_file", "key_file")
    arguments = client_arguments(
        {name: value for name, value in config.items() if name in known}, user, password, params.endpoint
    )
    try:
        client = Client(params.endpoint, **arguments)
        store = RaftKVStore(params.endpoint, f"{params.run_id}.agents".replace("/", "_"), 0, ttl=ttl_s, **arguments)
    except RaftKVError as error:
        raise RendezvousStateError(f"{NAME} rendezvous: {error}") from error
    inner = create_handler(PrefixStore("agents", store), RaftKVBackend(client, params.run_id), params)
    return RaftKVRendezvousHandler(inner, params.endpoint, ttl_s, arguments)


def entry() -> Callable[[RendezvousParameters], RendezvousHandler]:
    """The value of the entry point in the group `torchrun.handlers`."""
    return create


__all__ = ["RaftKVBackend", "RaftKVRendezvousHandler", "create", "entry"]
