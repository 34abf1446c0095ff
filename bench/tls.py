"""What TLS costs: a cluster that speaks mutual TLS on both ports beside one that speaks plainly, in turn, with the same client.

    python bench/tls.py [ROUNDS]        default 3; about 20 s each

CPU of the leader's process per operation, and per connection that is made and greeted. 128-byte values, requests to the leader, P-256 keys.
"""

import asyncio
import json
import ssl
import statistics
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Awaitable, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import trustme
import uvloop
from processes import HOST, Cluster, Member
from raftkv_cluster import RaftkvKind

import raftkv

SECONDS = 3.0
WARM_UP_SECONDS = 0.5
CONNECTIONS = 300
VALUE = b"v" * 128
KEYS = 10_000


class Certificates:
    """One for all members and the client, of a CA that is forgotten afterwards."""

    def __init__(self, directory: Path) -> None:
        ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        issued = ca.issue_cert(HOST, key_type=trustme.KeyType.ECDSA)
        self.ca, self.cert, self.key = (str(directory / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        for path, blob in (
            (self.ca, ca.cert_pem),
            (self.cert, issued.cert_chain_pems[0]),
            (self.key, issued.private_key_pem),
        ):
            blob.write_to_path(path)

    def flags(self) -> tuple[str, ...]:
        ports = [
            (f"--{port}cert-file", self.cert, f"--{port}key-file", self.key, f"--{port}trusted-ca-file", self.ca)
            for port in ("", "peer-")
        ]
        return (*ports[0], *ports[1], "--client-cert-auth", "--peer-client-cert-auth")

    def client(self) -> raftkv.Tls:
        return raftkv.Tls(self.ca, self.cert, self.key)


@dataclass(slots=True)
class TlsKind(RaftkvKind):
    """Its pages are asked for over TLS."""

    context: ssl.SSLContext | None = None

    def _get(self, member: Member, path: str) -> tuple[int, bytes]:
        url = f"https://{HOST}:{member.client_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=2.0, context=self.context) as response:
                return response.status, response.read()
        except OSError:
            return 0, b""

    def is_ready(self, member: Member) -> bool:
        return self._get(member, "/readyz")[0] == 200

    def leader_of(self, members: list[Member]) -> str | None:
        for member in members:
            status, body = self._get(member, "/status")
            if status == 200 and json.loads(body).get("role") == "leader":
                return member.name
        return None


Figures = dict[str, tuple[float, float]]
"""What was done -> how often in a second, and the leader's CPU-us each."""


async def measure(leader: Member, tls: raftkv.Tls | None) -> Figures:
    figures: Figures = {}
    async with raftkv.connect(leader.endpoint, tls=tls, timeout=30) as kv:
        await kv.put("k0", VALUE)

        async def put(number: int) -> None:
            await kv.put(f"k{number % KEYS}", VALUE)

        async def get(number: int) -> None:
            await kv.get(f"k{number % KEYS}")

        for name, one, in_flight in (("put, 1", put, 1), ("put, 128", put, 128), ("get, 128", get, 128)):
            await run_for(WARM_UP_SECONDS, one, in_flight)
            began, cpu = time.perf_counter(), leader.cpu_seconds()
            count = await run_for(SECONDS, one, in_flight)
            figures[name] = (count / (time.perf_counter() - began), (leader.cpu_seconds() - cpu) / count * 1e6)
    began, cpu = time.perf_counter(), leader.cpu_seconds()
    for _ in range(CONNECTIONS):
        async with raftkv.connect(leader.endpoint, tls=tls, timeout=30) as kv:
            await kv.get("k0", stale=True)
    elapsed, used = time.perf_counter() - began, leader.cpu_seconds() - cpu
    figures["connection"] = (CONNECTIONS / elapsed, used / CONNECTIONS * 1e6)
    return figures


async def run_for(seconds: float, one: Callable[[int], Awaitable[None]], in_flight: int) -> int:
    """How many were done by so many lanes."""
    end_at, done = time.perf_counter() + seconds, 0

    async def lane(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end_at:
            await one(number)
            number += in_flight
            done += 1

    async with asyncio.TaskGroup() as lanes:
        for number in range(in_flight):
            lanes.create_task(lane(number))
    return done


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, dict[str, list[tuple[float, float]]]] = {"plain": {}, "tls": {}}
    with tempfile.TemporaryDirectory(prefix="bench-tls-") as directory:
        certificates = Certificates(Path(directory))
        context = ssl.create_default_context(cafile=certificates.ca)
        context.load_cert_chain(certificates.cert, certificates.key)
        kinds: list[tuple[str, Any, raftkv.Tls | None]] = [
            ("plain", RaftkvKind(), None),
            ("tls", TlsKind("tls", certificates.flags(), context), certificates.client()),
        ]
        for _ in range(rounds):
            for name, kind, tls in kinds:
                with Cluster(kind) as cluster, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    for what, figure in runner.run(measure(cluster.leader(), tls)).items():
                        found[name].setdefault(what, []).append(figure)
    for what, plain in found["plain"].items():
        rates = [statistics.median(rate for rate, _ in found[name][what]) for name in ("plain", "tls")]
        costs = [statistics.median(cost for _, cost in found[name][what]) for name in ("plain", "tls")]
        ratios = [tls[1] / before[1] for before, tls in zip(plain, found["tls"][what], strict=True)]
        print(
            f"{what:<11} plain {rates[0]:8.0f}/s {costs[0]:7.1f} us, TLS {rates[1]:8.0f}/s {costs[1]:7.1f} us,"
            f" CPU ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
