"""One member, put together: log, store, core, service, peers and the client port. The only place that knows all rooms."""

import asyncio
import logging
import secrets
from pathlib import Path
from typing import Any, Callable

import raftkv
from raftkv.daemon.api.http import build_http_server
from raftkv.daemon.api.native import NativeConnection
from raftkv.daemon.config import DaemonConfig
from raftkv.daemon.journal import JournalThread
from raftkv.daemon.loop import PeerNetwork, ReplicaLoop
from raftkv.daemon.membership import Incarnations, Membership
from raftkv.daemon.metrics import Counters
from raftkv.daemon.mux import ClientPort
from raftkv.daemon.storage import Storage
from raftkv.daemon.view import View
from raftkv.errors import TransferRefused
from raftkv.raft.config import RaftConfig, SavedState
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import Configuration
from raftkv.raft.node import Raft
from raftkv.replica.replica import Replica
from raftkv.replica.service import Founding, Service
from raftkv.transport.handshake import Identity as PeerIdentity
from raftkv.transport.peers import PeerTransport
from raftkv.units import NodeId
from raftkv.wal.disk import RealDisk
from raftkv.wal.record import Identity
from raftkv.wal.recovery import Recovered
from raftkv.wal.wal import Wal
from raftkv.wire.commands import Answer, failure
from raftkv.wire.protocol import PROTOCOL_VERSION
from raftkv.wire.settings import settings_of

log = logging.getLogger("raftkv")


class Member:
    """A running member. `failed` is resolved with the error that ended it."""

    def __init__(
        self,
        config: DaemonConfig,
        membership: Membership,
        directory: Path,
        *,
        loop: asyncio.AbstractEventLoop,
        draw_ticks: Callable[[int, int], int],
    ) -> None:
        self._config = config
        self._membership = membership
        self._loop = loop
        self.cluster_name = membership.cluster_name
        self.counters = Counters()
        self._storage = Storage(
            loop=loop,
            store_path=directory / "store",
            snapshots_path=directory / "snapshots",
            limits=config.limits,
            observe_commit_seconds=self.counters.observe_commit,
        )
        wal, recovered = _open_wal(directory / "wal", membership, config)
        self._raft = Raft(self._raft_config(), self._saved_state(recovered), draw_ticks)
        self._journal = JournalThread(
            wal, loop, durable_index=self._raft.last_index, observe_sync_seconds=self.counters.observe_sync
        )
        self._network = PeerNetwork(membership.node_id)
        self._service = self._new_service()
        self._replica = Replica(
            raft=self._raft,
            journal=self._journal,
            network=self._network,
            state_machine=self._storage,
            limits=config.limits,
            listener=self._service,
        )
        self._driver = ReplicaLoop(
            loop=loop,
            raft=self._raft,
            replica=self._replica,
            service=self._service,
            storage=self._storage,
            journal=self._journal,
            tick_ms=config.tick_ms,
            fsync_stall_ms_max=config.fsync_stall_ms_max,
            counters=self.counters,
        )
        self._peers = PeerTransport(
            self._peer_identity(), self._driver, config.limits, check_incarnation=self._check_incarnation
        )
        self._incarnations = Incarnations(directory)
        self._addresses: dict[NodeId, str] = {}
        self._view = View(self)
        self._client_port = ClientPort(self._new_native, build_http_server(self._view), config.limits)

    @property
    def failed(self) -> "asyncio.Future[BaseException]":
        """Resolved when this member must stop."""
        return self._driver.failed
