"""Three members with mutual TLS on both ports: what works as without, who is kept out, and certificates that change meanwhile."""

import asyncio
import datetime
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trustme

import raftkv
from raftkv.errors import PermissionDenied, RaftKVError, Unreachable

from .conftest import StartCluster
from .harness.cluster import Cluster, Place
from .harness.node import Node
from .harness.ports import PortReservations
from .harness.process import RAFTKV, raftkv_environment
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration


class Shop:
    """A CA and certificates of it, in files."""

    def __init__(self, directory: Path) -> None:
        self.ca = trustme.CA()
        self.directory = directory
        self.ca_file = self._write("ca.pem", self.ca.cert_pem)

    def _write(self, name: str, blob: trustme.Blob) -> str:
        path = str(self.directory / name)
        blob.write_to_path(path + ".new")
        os.replace(path + ".new", path)
        return path

    def issue(
        self, stem: str, *names: str, common_name: str | None = None, ca: trustme.CA | None = None, **more: Any
    ) -> tuple[str, str]:
        """Certificate and key, over what was there."""
        issued = (ca or self.ca).issue_cert(*names, common_name=common_name, **more)
        certificate = self._write(f"{stem}.pem", issued.cert_chain_pems[0])
        return certificate, self._write(f"{stem}-key.pem", issued.private_key_pem)

    def settings(self, name: str) -> dict[str, str]:
        """Both ports of a member."""
        own, peer = self.issue(name, "127.0.0.1", name), self.issue(f"peer-{name}", host_of(name))
        return {
            "RAFTKV_CERT_FILE": own[0],
            "RAFTKV_KEY_FILE": own[1],
            "RAFTKV_TRUSTED_CA_FILE": self.ca_file,
            "RAFTKV_CLIENT_CERT_AUTH": "true",
            "RAFTKV_PEER_CERT_FILE": peer[0],
            "RAFTKV_PEER_KEY_FILE": peer[1],
            "RAFTKV_PEER_TRUSTED_CA_FILE": self.ca_file,
            "RAFTKV_PEER_CLIENT_CERT_AUTH": "true",
        }


def host_of(name: str) -> str:
    """Each member has an address of its own to the others, all of them on loopback."""
    return f"127.0.1.{name.removeprefix('n')}"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


class Town:
    """A cluster with TLS, and one client's certificate."""

    def __init__(self, shop: Shop, cluster: Cluster) -> None:
        self.shop = shop
        self.cluster = cluster
        self.tls = raftkv.Tls(shop.ca_file, *shop.issue("client", "client", common_name="root"))
        self.endpoints = ",".join(f"https://{node.client_endpoint}" for node in cluster.nodes)

    def client(self, **options: Any) -> raftkv.Client:
        options.setdefault("tls", self.tls)
        return raftkv.Client(self.endpoints, **options)

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        assert self.tls.ca_file and self.tls.cert_file and self.tls.key_file
        given = {"RAFTKV_CACERT": self.tls.ca_file, "RAFTKV_CERT": self.tls.cert_file, "RAFTKV_KEY": self.tls.key_file}
        return subprocess.run(
            [*RAFTKV, *arguments],
            env=raftkv_environment({"RAFTKV_ENDPOINTS": self.endpoints, **given, **environment}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def statuses(self) -> list[dict[str, Any]]:
        answer = self.run("status", "-o", "json", "--timeout", "2")
        return list(json.loads(answer.stdout)) if answer.returncode == 0 else []

    def leader(self) -> Node:
        def found() -> str:
            return next((row["name"] for row in self.statuses() if row["role"] == "leader"), "")

        return self.cluster[wait_until(found, "a leader", deadline_s=30)]


@pytest.fixture
def town(make_cluster: StartCluster, shop: Shop) -> Town:
    """Serving."""
    return start(make_cluster, shop)


def start(make_cluster: StartCluster, shop: Shop) -> Town:
    ports = PortReservations()
    places = [Place(f"127.0.0.1:{ports.take()}", f"{host_of(f'n{i}')}:{ports.take()}") for i in range(1, 4)]
    cluster = make_cluster(places=places)
    cluster.at_close(ports.close)
    for node in cluster.nodes:
        node.environment.update(shop.settings(node.name))
        node.start()
    town = Town(shop, cluster)
    wait_until(lambda: town.run("health", "--timeout", "2").returncode == 0, "all members to be ready", deadline_s=40)
    return town


def test_clients_and_command_line_through_the_death_of_a_leader(town: Town) -> None:
    with town.client() as kv:
        kv.put("a", "1")
        town.leader().kill()
        kv.put("b", "2", timeout=20)
        assert (kv.get("a"), kv.get("b")) == (b"1", b"2")

    async def scenario() -> None:
        async with raftkv.connect(town.endpoints, tls=town.tls) as kv:
            await asyncio.gather(*[kv.put(f"k{i}", b"x" * 1000) for i in range(500)])
            assert (await kv.range(prefix="k", count_only=True)).count == 500
            async with kv.watch("w") as watch:
                await watch.started()
                await kv.put("w", "1")
                assert (await anext(watch)).kv.value == b"1"

    asyncio.run(scenario())
    assert town.run("get", "a").stdout == "1\n"


def test_who_is_kept_out_and_told_why(town: Town, make_cluster: StartCluster) -> None:
    strangers = trustme.CA()
    expired = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    shop = town.shop
    late = shop.issue("late", "client", not_after=expired)
    foreign = shop.issue("foreign", "client", ca=strangers)
    for tls, told in (
        (raftkv.Tls(), "no TLS"),
        (town.tls._replace(server_name="elsewhere"), "not valid for 'elsewhere'"),
        (raftkv.Tls(shop.ca_file), ""),  # no certificate: the member hangs up
        (raftkv.Tls(shop.ca_file, *late), ""),
        (raftkv.Tls(shop.ca_file, *foreign), ""),
    ):
        with town.client(tls=tls, timeout=2) as kv, pytest.raises(Unreachable) as refused:
            kv.put("a", "1")
        assert told in refused.value.message
        assert not refused.value.may_have_happened
    plain = town.run(
        "get",
        "a",
        "--timeout",
        "2",
        RAFTKV_CACERT="",
        RAFTKV_CERT="",
        RAFTKV_KEY="",
        RAFTKV_ENDPOINTS=",".join(node.client_endpoint for node in town.cluster.nodes),
    )
    assert plain.returncode == 4
    assert plain.stderr.count("\n") == 1
    with town.client() as kv:
        assert kv.get("a") is None
    plain_cluster = make_cluster(size=1).start()
    with (
        raftkv.Client(f"https://{plain_cluster.nodes[0].client_endpoint}", tls=town.tls, timeout=2) as kv,
        pytest.raises(Unreachable),
    ):
        kv.get("a")
    with raftkv.Client(plain_cluster.nodes[0].client_endpoint) as kv:
        kv.put("a", "still serving")


def test_who_offers_both_kinds_of_http_gets_the_pages(town: Town) -> None:
    """curl, browsers and Prometheus offer HTTP/2 first; gRPC offers nothing else."""
    assert town.tls.ca_file and town.tls.cert_file
    host, _, port = town.cluster.nodes[0].client_endpoint.rpartition(":")
    for offered, chosen in ((["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), (["h2"], "h2"), ([], None)):
        context = ssl.create_default_context(cafile=town.tls.ca_file)
        context.load_cert_chain(town.tls.cert_file, town.tls.key_file)
        if offered:
            context.set_alpn_protocols(offered)
        with (
            socket.create_connection((host, int(port)), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=host) as line,
        ):
            assert line.selected_alpn_protocol() == chosen
            if chosen != "h2":
                line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                with line.makefile("rb") as answer:
                    assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
                    assert answer.read().endswith(b'{"health":"true","reason":""}')


def test_certificates_change_while_everybody_works(town: Town) -> None:
    stopped = False
    written = 0

    async def scenario() -> None:
        nonlocal written

        async def write(kv: Any) -> None:
            nonlocal written
            while not stopped:
                written += 1
                await kv.put(f"n{written}", "1")

        # Connections live for two seconds, so that new ones are made all the time.
        async with raftkv.connect(town.endpoints, tls=town.tls, connection_lifetime=2.0) as kv:
            writers = [asyncio.create_task(write(kv)) for _ in range(4)]
            await asyncio.to_thread(rotate)
            for writer in writers:
                await writer

    def rotate() -> None:
        nonlocal stopped
        try:
            for _ in range(2):
                before = {node.name: serial_of(town, node) for node in town.cluster.nodes}
                for node in town.cluster.nodes:
                    town.shop.settings(node.name)
                for node in town.cluster.nodes:
                    wait_until(
                        lambda node=node, before=before: serial_of(town, node) != before[node.name],
                        f"{node.name} to show its new certificate",
                        deadline_s=20,
                    )
        finally:
            stopped = True

    asyncio.run(scenario())
    assert written > 0
    with town.client() as kv:
        assert kv.range(prefix="n", count_only=True).count == written
    for node in town.cluster.nodes:
        metrics = metrics_of(town, node)
        for port in ("client", "peer"):
            end = metrics[f'raftkv_certificate_not_after_seconds{{port="{port}"}}']
            assert end == ssl.cert_time_to_seconds(shown_by(town, node)["notAfter"]), "one CA, which issues all alike"
        assert metrics['raftkv_certificate_reloads_total{outcome="ok",port="client"}'] >= 2


def metrics_of(town: Town, node: Node) -> dict[str, float]:
    """What a member tells Prometheus."""
    context = client_context(town)
    with urllib.request.urlopen(f"https://{node.client_endpoint}/metrics", context=context, timeout=10) as page:
        lines = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def serial_of(town: Town, node: Node) -> str:
    """Of the certificate that a member shows now."""
    return str(shown_by(town, node)["serialNumber"])


def client_context(town: Town) -> ssl.SSLContext:
    assert town.tls.cert_file
    context = ssl.create_default_context(cafile=town.shop.ca_file)
    context.load_cert_chain(town.tls.cert_file, town.tls.key_file)
    return context


def shown_by(town: Town, node: Node) -> Any:
    """The certificate that a member shows now."""
    context = client_context(town)
    host, _, port = node.client_endpoint.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as line,
        context.wrap_socket(line, server_hostname=host) as tls,
    ):
        return tls.getpeercert()


def test_a_member_with_the_certificate_of_another_is_not_heard(make_cluster: StartCluster, shop: Shop) -> None:
    town = start(make_cluster, shop)
    victim = next(node for node in town.cluster.nodes if node is not town.leader())
    other = next(node for node in town.cluster.nodes if node is not victim)
    assert victim.terminate() == 0
    victim.environment["RAFTKV_PEER_CERT_FILE"] = str(shop.directory / f"peer-{other.name}.pem")
    victim.environment["RAFTKV_PEER_KEY_FILE"] = str(shop.directory / f"peer-{other.name}-key.pem")
    # It even says that it listens where the other one does.
    port = victim.peer_endpoint.rpartition(":")[2]
    victim.environment["RAFTKV_ADVERTISE_PEER"] = f"{host_of(other.name)}:{port}"
    victim.start()
    wait_until(
        lambda: any(
            f"the certificate that '{victim.name}' shows is that of '{other.name}'" in node.log_path.read_text()
            for node in town.cluster.nodes
            if node is not victim
        ),
        "the others to say why they do not listen",
        deadline_s=30,
    )
    with town.client() as kv:
        kv.put("a", "two are enough", timeout=20)
    # One that does not answer has its name from the others, and on a busy machine those may not answer in time either.
    row = wait_until(
        lambda: next((row for row in town.statuses() if row["name"] == victim.name), None), "its row", deadline_s=30
    )
    assert row["leader"] in ("", None), "nobody told it, or it has ended because a majority refuses it"


def test_a_cluster_that_lives_is_not_recovered_however_it_speaks(town: Town) -> None:
    stopped = next(node for node in town.cluster.nodes if node is not town.leader())
    assert stopped.terminate() == 0
    words = ("recover", "--yes", "--data-dir", str(stopped.data_directory))
    told = town.run(*words)
    assert told.returncode == 1
    assert "the cluster lives" in told.stderr, told.stderr
    unseen = town.run(*words, RAFTKV_CACERT="", RAFTKV_CERT="", RAFTKV_KEY="")
    assert unseen.returncode == 1
    assert "give --cacert, --cert and --key" in unseen.stderr, unseen.stderr
    for node in town.cluster.nodes:
        node.kill()
    lost = town.run(*words)
    assert lost.returncode == 0, lost.stderr


def test_the_name_in_a_certificate_is_the_user_at_every_door(town: Town) -> None:
    shop = town.shop
    nobody = raftkv.Tls(shop.ca_file, *shop.issue("eve", "client", common_name="eve"))
    ann = raftkv.Tls(shop.ca_file, *shop.issue("ann", "client", common_name="ann"))
    with town.client() as root:  # whose certificate says so
        root.put("a/1", "1")
        root.put("b/1", "1")
        for user in ("root", "ann"):
            root.user_add(user, None)
        root.user_grant_role("root", "root")
        root.role_add("a")
        root.role_grant_permission("a", "readwrite", prefix="a/")
        root.user_grant_role("ann", "a")
        root.auth_enable()  # for members know each other by their certificates
        assert root.get("b/1") == b"1"
        assert sorted(root.user_list()) == ["ann", "root"]
    with town.client(tls=ann, timeout=20) as kv:
        kv.put("a/2", "2")
        for forbidden in (lambda: kv.get("b/1"), lambda: kv.put("b/1", "2"), lambda: kv.user_add("more", None)):
            with pytest.raises(PermissionDenied):
                forbidden()
    with town.client(tls=nobody, timeout=2) as kv, pytest.raises(RaftKVError) as refused:
        kv.get("a/1")
    assert not isinstance(refused.value, Unreachable)
    for node in town.cluster.nodes:
        assert etcdctl(node, ann, "get", "a/2", "--print-value-only").stdout == "2\n"
        denied = etcdctl(node, ann, "get", "b/1")
        assert denied.returncode != 0
        assert "permission denied" in denied.stderr
        # As in etcd, whose gateway is a client of its own with a certificate of its own: a name counts there only with a login.
        assert page(node, ann, "/v3/kv/range", b'{"key": "YS8x"}') == 400
        assert page(node, ann, "/members") == 200
        assert page(node, nobody, "/members") in (401, 403)


def etcdctl(node: Node, tls: raftkv.Tls, *words: str) -> "subprocess.CompletedProcess[str]":
    assert tls.ca_file and tls.cert_file and tls.key_file
    files = ["--cacert", tls.ca_file, "--cert", tls.cert_file, "--key", tls.key_file]
    program = str(Path(sys.executable).with_name("etcdctl"))
    return subprocess.run(
        [program, "--endpoints", f"https://{node.client_endpoint}", *files, *words],
        env={**os.environ, "ETCDCTL_API": "3"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def page(node: Node, tls: raftkv.Tls, path: str, body: bytes | None = None) -> int:
    """The HTTP status."""
    assert tls.cert_file
    context = ssl.create_default_context(cafile=tls.ca_file)
    context.load_cert_chain(tls.cert_file, tls.key_file)
    request = urllib.request.Request(f"https://{node.client_endpoint}{path}", body)
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_handshakes_that_never_end_stop_nobody(town: Town) -> None:
    node = town.cluster.nodes[0]
    host, _, port = node.client_endpoint.rpartition(":")
    hanging = [socket.create_connection((host, int(port)), timeout=5) for _ in range(300)]
    try:
        with raftkv.Client(f"https://{node.client_endpoint}", tls=town.tls, timeout=20) as kv:
            kv.put("a", "1")
            assert kv.get("a") == b"1"
    finally:
        for line in hanging:
            line.close()


def test_a_member_joins_over_tls(town: Town) -> None:
    asked = town.cluster.nodes[0]
    joining = town.cluster.add_node("n4", join=asked.client_endpoint, environment=town.shop.settings("n4"))
    joining.environment["RAFTKV_ADVERTISE_PEER"] = joining.peer_endpoint = (
        f"{host_of('n4')}:{joining.peer_endpoint.rpartition(':')[2]}"
    )
    joining.start()
    wait_until(
        lambda: any(row["name"] == "n4" and row["role"] == "follower" for row in town.statuses()),
        "n4 to be a voter",
        deadline_s=40,
    )
