"""The blocking client on an etcd cluster: `raftkv.Client("etcd://...")` is one. Verbs and recipes are the client's; what carries them is raftkv.etcdclient.

Made by `Client.__new__`, so that nothing of it, gRPC least of all, is loaded for anybody else.
"""

from typing import TYPE_CHECKING, Any, Mapping, Sequence, cast

from raftkv.client.decisions import BARE_WRITE, PATIENT_READ, STALE_READ, WRITE
from raftkv.client.endpoints import Directory
from raftkv.client.options import DEFAULT_TIMEOUT_S, make_options
from raftkv.client.tls import Tls
from raftkv.errors import ConfigError, RaftKVError
from raftkv.etcdclient.blocking import EtcdCaller
from raftkv.etcdclient.watch import EtcdWatch
from raftkv.etcdclient.where import parse
from raftkv.recipes.clients import Client
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import STATUS
from raftkv.wire.users import USER_ADD, USER_CHANGE_PASSWORD

if TYPE_CHECKING:
    from raftkv.client.keptlease import Keeper


class EtcdClient(Client):
    __doc__ = Client.__doc__

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
        connections_max: int = 1,
    ) -> None:
        where = parse(endpoints, tls)
        check_no_cluster_name(cluster_name)
        options = make_options(
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
        self._directory = Directory(where.addresses)
        self._write_kind = WRITE if session else BARE_WRITE
        self._options = options
        self._etcd = EtcdCaller(where, options)
        self._caller = cast(Any, self._etcd)
        self._keeper: Keeper | None = None
        self._waits = None
        self._watches: set[Any] = set()

    def user_add(self, name: str, password: str | None, *, timeout: float | None = None) -> None:
        self._write([USER_ADD, 0, name, password or "", password is None], timeout)

    def user_change_password(self, name: str, password: str, *, timeout: float | None = None) -> None:
        self._write([USER_CHANGE_PASSWORD, 0, name, password], timeout)

    def _wait(self, command: Command, timeout: float | None) -> Answer:
        return self._etcd.call(command, PATIENT_READ, timeout)

    def _open_watch(self, command: Command, progress: bool, timeout: float | None, patience: float | None) -> Any:
        from raftkv.client.watchstate import WatchState

        timeout = self._options.timeout_s if timeout is None else timeout
        state = WatchState(command, progress=progress)
        watch = EtcdWatch(self._etcd, state, timeout, patience, self._watches.discard)
        self._watches.add(watch)
        return watch

    def _lease_keeper(self) -> "Keeper":
        from raftkv.client.keptlease import Keeper

        if self._keeper is None:
            self._keeper = Keeper(self._caller, self._options.timeout_s)
        return self._keeper

    def _ask_status(self, address: str, timeout: float | None) -> Mapping[str, Any] | RaftKVError:
        try:
            return cast(Mapping[str, Any], self._etcd.ask(address, [STATUS], timeout, STALE_READ)[1])
        except RaftKVError as error:
            return error


def check_no_cluster_name(cluster_name: str | None) -> None:
    """Raises ConfigError: a pin that nobody looks at would be worse than none."""
    if cluster_name is not None:
        raise ConfigError("an etcd cluster has no name that a client could pin: leave cluster_name out")
