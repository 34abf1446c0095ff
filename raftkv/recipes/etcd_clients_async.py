"""The asyncio client on an etcd cluster: `raftkv.connect("etcd://...")` makes one. See etcd_clients.py."""

import asyncio
from typing import Any, Mapping, Sequence, cast

from raftkv.client.decisions import BARE_WRITE, STALE_READ, WRITE
from raftkv.client.endpoints import Directory
from raftkv.client.options import DEFAULT_TIMEOUT_S, make_options
from raftkv.client.tls import Tls
from raftkv.errors import ClientClosed, RaftKVError
from raftkv.etcdclient.dispatch import EtcdDispatcher
from raftkv.etcdclient.watch_async import EtcdWatches
from raftkv.etcdclient.where import parse
from raftkv.recipes.clients_async import AsyncClient
from raftkv.recipes.etcd_clients import check_no_cluster_name
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import STATUS
from raftkv.wire.users import USER_ADD, USER_CHANGE_PASSWORD


class AsyncEtcdClient(AsyncClient):
    __doc__ = AsyncClient.__doc__

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        cluster_name: str | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        attempt_timeout: float | None = None,
        session: bool = True,
        connection_lifetime: float = 600.0,
        idle_check_after: float = 30.0,
        client_name: str = "",
        user: str | None = None,
        password: str = "",
        tls: Tls | None = None,
    ) -> None:
        self._where = parse(endpoints, tls)
        check_no_cluster_name(cluster_name)
        self._options = make_options(
            cluster_name=None,
            timeout=timeout,
            attempt_timeout=attempt_timeout,
            session=session,
            connection_lifetime=connection_lifetime,
            idle_check_after=idle_check_after,
            client_name=client_name,
            user=user,
            password=password,
        )
        self._directory = Directory(self._where.addresses)
        self._write_kind = WRITE if session else BARE_WRITE
        self._etcd: EtcdDispatcher | None = None
        self._dispatcher = None
        self._submit = self._first_submit
        self._closed = False
        self._keeper = None
        self._watches = None

    async def user_add(self, name: str, password: str | None, *, timeout: float | None = None) -> None:
        await self._write([USER_ADD, 0, name, password or "", password is None], timeout)

    async def user_change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        await self._write([USER_CHANGE_PASSWORD, 0, name, password], timeout)

    def _bind(self) -> Any:
        return self._bound()

    def _bound(self) -> EtcdDispatcher:
        if self._closed:
            raise ClientClosed()
        if self._etcd is None:
            self._etcd = EtcdDispatcher(self._where, self._options)
            self._dispatcher = cast(Any, self._etcd)
        return self._etcd

    def _wait(self, command: Command, timeout: float | None) -> "asyncio.Future[Answer]":
        return self._submit(command, STALE_READ, timeout)

    def _open_watch(self, command: Command, progress: bool, timeout: float | None, patience: float | None) -> Any:
        from raftkv.client.watch_async import AsyncWatch
        from raftkv.client.watchstate import WatchState

        if self._watches is None:
            self._watches = cast(Any, EtcdWatches(self._bound()))
        timeout = self._options.timeout_s if timeout is None else timeout
        return AsyncWatch(cast(Any, self._watches), WatchState(command, progress=progress), timeout, patience)

    def _lease_keeper(self) -> Any:
        from raftkv.client.keptlease_async import AsyncKeeper

        if self._keeper is None:
            self._keeper = AsyncKeeper(cast(Any, self._bound()))
        return self._keeper

    async def _ask_status(self, address: str, timeout: float | None) -> Mapping[str, Any] | RaftKVError:
        try:
            return cast(Mapping[str, Any], (await self._bound().ask(address, [STATUS], timeout, STALE_READ))[1])
        except RaftKVError as error:
            return error
