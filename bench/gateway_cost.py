"""What a put through etcd's JSON gateway costs in Python, in one process: bytes of HTTP in and out, no socket, no disk, one member. CPU time of the thread.

    python bench/gateway_cost.py [CONNECTIONS ...]        default 1 16 128

Each connection has one request in flight. `get` is a linearizable read of one key.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import uvloop

from raftkv.daemon.api import gateway_streams
from raftkv.daemon.api.gateway import Gateway
from raftkv.daemon.api.http import build_http_server
from raftkv.daemon.etcd.procedures import GATEWAY
from tests.unit.daemon.etcd_calls import HandHouse

REQUESTS = 4_000
VALUE = "eHh4" * 43  # 129 bytes


class Wire(asyncio.Transport):
    """Counts responses."""

    def __init__(self, done: Any) -> None:
        super().__init__()
        self._done = done

    def write(self, data: Any) -> None:
        if b"200 OK" not in bytes(data):
            raise AssertionError(bytes(data))
        self._done()

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def request(path: str, body: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:2379\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return f"{head}\r\n\r\n{body}".encode()


async def measure(connections: int) -> None:
    hand = HandHouse()
    nobody: Any = None
    http = build_http_server(nobody, nobody, nobody, Gateway(hand.house, GATEWAY, gateway_streams))
    left, finished = 0, asyncio.Event()

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            finished.set()

    lines: list[Any] = [http() for _ in range(connections)]
    for line in lines:
        line.connection_made(Wire(done))
    for name, path, body in (
        ("put", "/v3/kv/put", '{"key":"a2V5","value":"' + VALUE + '"}'),
        ("get", "/v3/kv/range", '{"key":"a2V5"}'),
    ):
        data, began = request(path, body), time.thread_time()
        for _ in range(REQUESTS // connections):
            left = connections
            finished.clear()
            for line in lines:
                line.data_received(data)
            await finished.wait()
        count = REQUESTS // connections * connections
        print(f"{name} {connections:>4} connections: {(time.thread_time() - began) / count * 1e6:6.1f} us", flush=True)
    await http.shutdown(0.1)


def main() -> None:
    for connections in [int(argument) for argument in sys.argv[1:]] or [1, 16, 128]:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(measure(connections))


if __name__ == "__main__":
    main()
