"""One member, put together: log, store, core, service, peers and the client port. The only place that knows all rooms."""

import asyncio
import logging
import secrets
from dataclasses import replace
from typing import Any, Callable

import raftkv
from raftkv.daemon.authn import Authenticator
from raftkv.daemon.backups import Backups
from raftkv.daemon.config import DaemonConfig
from raftkv.daemon.datadir import DataDirectory
from raftkv.daemon.defrag import Defragmentation
from raftkv.daemon.doors import build_client_port
from raftkv.daemon.encryption import peer_tls
from raftkv.daemon.etcd_metrics import EtcdMetrics, Parts
from raftkv.daemon.journal import WalJournal
from raftkv.daemon.login_metrics import LoginMetrics
from raftkv.daemon.loop import PeerNetwork, ReplicaLoop, monotonic_ms
from raftkv.daemon.membership import Membership, load_membership, save_membership
from raftkv.daemon.metrics import Counters, Gauges, Metrics
from raftkv.daemon.neighbours import Neighbours
from raftkv.daemon.restart import bring_together
from raftkv.daemon.storage import Storage
from raftkv.daemon.tls_metrics import TlsMetrics
from raftkv.daemon.view import View
from raftkv.errors import ConfigError, Corruption, ShuttingDown, TransferRefused, WrongDataDirectory
from raftkv.raft.config import RaftConfig
from raftkv.raft.node import Raft
from raftkv.replica.membership import read_request
from raftkv.replica.replica import Replica
from raftkv.replica.service import LEADER, Service
from raftkv.replica.upkeep import Founding
from raftkv.transport.handshake import Identity as PeerIdentity
from raftkv.transport.peer_tls import PeerTls
from raftkv.transport.peers import PeerTransport
from raftkv.units import NOBODY, Index
from raftkv.wal.record import Identity
from raftkv.wire.commands import Answer, failure
from raftkv.wire.settings import settings_of

log = logging.getLogger("raftkv")

TICK_MS = 25
CHANGE_TIMEOUT_MS = 10_000  # of a membership change over HTTP


class Member:
    """A running member. `failed` is resolved with the error that ended it, `removed` when it is no member any more."""

    def __init__(
        self,
        config: DaemonConfig,
        membership: Membership,
        directory: DataDirectory,
        *,
        loop: asyncio.AbstractEventLoop,
        draw_ticks: Callable[[int, int], int],
    ) -> None:
        self._config = config
        self._membership, self._directory = membership, directory
        self._loop = loop
        self.removed: asyncio.Future[None] = loop.create_future()
        self.cluster_name = membership.cluster_name
        tls = peer_tls(config)
        self.counters = Counters()
        # The log before the store: a store without a log is a member that forgot its votes.
        identity = Identity(config.cluster_name, membership.node_id, config.name, membership.incarnation)
        wal, recovered = directory.open_log(identity, config.limits)
        self._storage = Storage(
            loop=loop,
            store_file=directory.store_file,
            snapshots_path=directory.snapshots_path,
            limits=config.limits,
            timings=self.counters.timings,
        )
        saved = bring_together(wal, recovered, self._storage.store, membership.initial_configuration())
        self._raft = Raft(self._raft_config(), saved, draw_ticks)
        self._journal = WalJournal(
            wal,
            loop,
            durable_index=self._raft.last_index,
            observe_sync_seconds=self.counters.observe_sync,
            stall_seconds_max=config.fsync_stall_ms_max / 1000,
        )
        self._network = PeerNetwork(membership.node_id)
        self._service = self._new_service()
        self._driver = self._new_driver()
        self._neighbours = Neighbours(
            membership,
            directory.path,
            self._storage,
            self._raft,
            on_refused=self._driver.fail,
            on_removed=self._on_removed,
            tls=tls,
        )
        self._peers = PeerTransport(
            self._peer_identity(), self._driver, config.limits, check_member=self._neighbours.check, tls=tls
        )
        self.backups = Backups(
            self._storage, directory.snapshots_path, loop=loop, journal_durable_index=self._journal_durable_index
        )
        self.defragmentation = self._new_defragmentation()
        self.authenticator = self._new_authenticator(tls)
        self._view = self._new_view()
        self._client_port = build_client_port(self._service, self, self._view, config, self._change_members)
        parts = Parts(self._storage, self._journal, self._service, self.defragmentation)
        further = LoginMetrics(self.authenticator), TlsMetrics(self._client_port.tls, tls)
        self._view.metrics_text = EtcdMetrics(self._view, parts).join(Metrics(self.counters, self._gauges), *further)

    @classmethod
    def open(
        cls,
        config: DaemonConfig,
        directory: DataDirectory,
        *,
        loop: asyncio.AbstractEventLoop,
        draw_ticks: Callable[[int, int], int],
    ) -> "Member":
        """The member that lives in the directory, or a new one. Raises RaftKVError with what the operator can do."""
        membership = load_membership(directory.path)
        if membership is None:
            if not directory.is_new():
                raise Corruption(
                    f"{directory.path} has a log but no member.json: restore it or remove and re-add this member"
                )
            membership = found(config)
            save_membership(directory.path, membership)
        elif membership.removed:
            raise WrongDataDirectory(
                f"member {membership.name} was removed from the cluster: its data directory {directory.path} is of no use to it"
                " any more; start with an empty one and --join"
            )
        return cls(config, membership, directory, loop=loop, draw_ticks=draw_ticks)

    @property
    def failed(self) -> "asyncio.Future[BaseException]":
        """Resolved when this member must stop."""
        return self._driver.failed

    async def start(self) -> None:
        """Listen and take part. Raises ConfigError for an address that cannot be listened on."""
        try:
            await self._peers.start(self._config.listen_peer)
            await self._client_port.start(self._config.listen)
        except OSError as error:
            raise ConfigError(f"cannot listen: {error}") from error
        self._network.transport = self._peers
        self._neighbours.follow(self._peers)
        self._driver.start()
        self.authenticator.start()
        log.info(
            "member %s of cluster %r serves clients on %s, peers on %s",
            self._membership.name,
            self.cluster_name,
            self._config.listen,
            self._config.listen_peer,
        )

    async def shut_down(self, deadline: float) -> None:
        """Hand over, finish, close, sync; loop time `deadline` bounds the first two."""
        self._view.closing.set()
        await self._client_port.begin_shutdown()
        await self.defragmentation.close(ShuttingDown())
        await self._driver.hand_over_and_drain(deadline)
        self._driver.stop()
        self.authenticator.close()
        self.backups.close_all()
        await self._client_port.close()
        await self._peers.close()
        await self._journal.stop()
        await self._storage.close(self._journal.durable_index)
        log.info("stopped")

    # What the front doors ask (daemon/api/native.py).

    def hello(self) -> dict[str, Any]:
        """The greeting."""
        return self._view.hello()

    def status(self) -> dict[str, Any]:
        """This member's row of the status."""
        return self._view.status()

    def members(self) -> list[dict[str, Any]]:
        """The member table."""
        return self._view.members()

    def move_leader(self, target: str, done: Callable[[Answer], None]) -> None:
        """Transfer leadership to the member of that name, or id as text; an empty one leaves the choice to the core."""
        if not target:
            self._driver.leadership.move(None, done)
            return
        for member in self._storage.members():
            if target in (member["name"], str(member["id"])):
                self._driver.leadership.move(member["id"], done)
                return
        done(failure(TransferRefused(f"there is no member {target!r}")))

    async def _change_members(self, wanted: Any) -> Answer:
        """For doors that wait. Raises InvalidRequest."""
        answered: asyncio.Future[Answer] = self._loop.create_future()

        def on_answer(answer: Answer) -> None:
            if not answered.done():
                answered.set_result(answer)

        self._service.change_members(read_request(wanted), on_answer, CHANGE_TIMEOUT_MS)
        self.schedule_pump()
        return await answered

    def schedule_pump(self) -> None:
        """Act on what was submitted, at the end of this turn."""
        self._driver.schedule_pump()

    # Parts.

    def _journal_durable_index(self) -> Index:
        return self._journal.durable_index

    def _raft_config(self) -> RaftConfig:
        config = self._config
        return RaftConfig(
            node_id=self._membership.node_id,
            heartbeat_ticks=max(1, config.heartbeat_ms // TICK_MS),
            election_timeout_ticks=config.election_timeout_ms // TICK_MS,
            tick_ms=TICK_MS,
            fast_failover=config.fast_failover,
            lease_reads=config.lease_reads,
            snapshot_bytes_per_tick=-(-config.snapshot_bytes_per_second_max * TICK_MS // 1000),
            clock_ms=monotonic_ms,
            limits=config.limits,
        )

    def _new_driver(self) -> ReplicaLoop:
        self._replica = replica = Replica(
            raft=self._raft,
            journal=self._journal,
            network=self._network,
            state_machine=self._storage,
            limits=self._config.limits,
            listener=self._service,
        )
        driver = ReplicaLoop(
            loop=self._loop,
            raft=self._raft,
            replica=replica,
            service=self._service,
            storage=self._storage,
            journal=self._journal,
            tick_ms=TICK_MS,
            fsync_stall_ms_max=self._config.fsync_stall_ms_max,
            journal_bytes_max=self._config.limits.pending_writes_bytes_max,
            counters=self.counters,
        )
        driver.on_housekeeping = lambda: self._neighbours.follow(self._peers)
        return driver

    def _new_defragmentation(self) -> Defragmentation:
        return Defragmentation(
            self._storage,
            self._directory,
            loop=self._loop,
            limits=self._config.limits,
            held_log=self._raft,
            journal_durable_index=self._journal_durable_index,
        )

    def _new_authenticator(self, tls: PeerTls | None) -> Authenticator:
        config = self._config
        authenticator = Authenticator(
            self._storage,
            self._service,
            config.limits,
            self.schedule_pump,
            loop=self._loop,
            allow_insecure_peers=config.allow_insecure_peers,
        )
        authenticator.peers_are_secure = lambda: tls is not None and tls.is_mutual
        return authenticator

    def _new_view(self) -> View:
        membership, config = self._membership, self._config
        view = View(
            name=membership.name,
            cluster_name=membership.cluster_name,
            incarnation=membership.incarnation,
            endpoint=config.advertise,
            priority=config.priority,
            raft=self._raft,
            service=self._service,
            storage=self._storage,
            limits=config.limits,
        )
        view.schedule_pump = self.schedule_pump
        view.stalled_seconds = lambda: self._driver.leadership.stalled_seconds
        view.agreed_index = lambda: self._replica.digests.agreed_index
        view.loop_errors = self._driver.errors
        return view

    def _new_service(self) -> Service:
        membership, config = self._membership, self._config
        members = [(node_id, name, address) for node_id, (name, address) in sorted(membership.peers().items())]
        record = [
            membership.node_id,
            membership.name,
            membership.incarnation,
            config.advertise,
            config.advertise_peer,
            raftkv.__version__,
            config.priority,
        ]
        return Service(
            raft=self._raft,
            state_machine=self._storage,
            directory=self._storage,
            forwarder=self._network,
            limits=config.limits,
            founding=Founding(secrets.randbits(62) or 1, membership.cluster_name, members, settings_of(config.limits)),
            own_record=lambda: record,
            first_read_context=secrets.randbits(48) or 1,
            draw_id=lambda: secrets.randbits(63) or 1,
        )

    def _peer_identity(self) -> PeerIdentity:
        membership = self._membership
        return PeerIdentity(
            cluster_id=self._storage.cluster_id or membership.cluster_id,
            cluster_name=membership.cluster_name,
            node_id=membership.node_id,
            name=membership.name,
            incarnation=membership.incarnation,
            version=raftkv.__version__,
            address=self._config.advertise_peer,
        )

    def _on_removed(self) -> None:
        """Somebody else may have our place by now: stop, and never come back with this data."""
        if not self.removed.done():
            log.warning("this member was removed from the cluster: it stops")
            save_membership(self._directory.path, replace(self._membership, removed=True))
            self.removed.set_result(None)

    def _gauges(self) -> Gauges:
        raft, store, port = self._raft, self._storage.store, self._client_port
        self.counters.proposals_failed = self._service.figures.failed_commands
        return Gauges(
            version=raftkv.__version__,
            cluster_name=self.cluster_name,
            node_id=raft.node_id,
            has_leader=raft.leader != NOBODY,
            is_leader=raft.role == LEADER,
            is_learner=raft.role == "learner",
            ready=self._view.readiness()[0],
            term=raft.term,
            commit_index=raft.commit_index,
            applied_index=store.applied_index,
            last_index=raft.last_index,
            revision=store.revision,
            proposals_pending=self._service.figures.pending_commands,
            db_size_bytes=store.db_size_bytes,
            db_size_in_use_bytes=store.db_size_in_use_bytes,
            quota_bytes=self._config.limits.quota_bytes,
            leases=len(store.leases),
            watchers=self._storage.watches.count,
            watchers_slow=self._storage.watches.lagging_count,
            waits=len(self._storage.watches.waits),
            compact_revision=store.compact_revision,
            digest_agreed_index=self._replica.digests.agreed_index,
            diverging_members=len(self._driver.agreement.mismatches()),
            client_connections=port.connections_open,
            client_connections_accepted=port.connections_accepted,
            client_connections_refused=port.connections_refused,
            client_connections_unrecognized=port.connections_unrecognized,
            peer_connections_refused=self._peers.connections_refused,
            disk_stalled_seconds=self._driver.leadership.stalled_seconds,
            handovers=self._driver.leadership.handovers,
            snapshots_made=self._storage.snapshots_made,
            snapshots_installed=self._storage.snapshots_installed,
            snapshots_damaged=self._storage.snapshots_damaged,
            snapshot_bytes_sent=self._replica.snapshot_bytes_sent,
            snapshot_bytes_received=self._replica.snapshot_bytes_received,
            peers=self._peers.statistics(),
        )


def found(config: DaemonConfig) -> Membership:
    """A new member of a new cluster. Raises ConfigError."""
    if not config.initial_cluster:
        raise ConfigError(
            f"--initial-cluster or --join: is required on an empty data directory, for example {config.name}="
            f"{config.advertise_peer} for --initial-cluster"
        )
    if config.name not in config.initial_cluster:
        raise ConfigError(
            f"--initial-cluster has no member {config.name!r}: it names {', '.join(sorted(config.initial_cluster))}"
        )
    return Membership.found(config.cluster_name, config.name, dict(config.initial_cluster))
