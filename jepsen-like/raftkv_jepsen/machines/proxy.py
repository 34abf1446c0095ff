"""A TCP proxy that loses replies and connections: the fault that a retry must survive without applying twice.

A write whose request arrived and whose answer did not is the case in which a client cannot know the outcome; killing a
process rarely hits that moment, this proxy always does.
"""

import selectors
import socket
import struct
import threading
from dataclasses import dataclass

RECEIVE_BYTES = 65_536
POLL_S = 0.05
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Pair:
    client: socket.socket
    server: socket.socket
    swallow_replies: bool = False


class LossyProxy:
    """Listens on a loopback port and forwards to `target` until told to lose things. Runs on a thread of its own."""

    def __init__(self, target: str, port: int) -> None:
        host, _, target_port = target.rpartition(":")
        self._target = (host, int(target_port))
        self.endpoint = f"127.0.0.1:{port}"
        self.replies_lost_count = 0
        self._lock = threading.Lock()
        self._pairs: dict[socket.socket, _Pair] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lossy-proxy", daemon=True)
        self._thread.start()

    def lose_replies(self) -> None:
        """From now on requests on the open connections arrive, their answers do not."""
        with self._lock:
            for pair in self._pairs.values():
                pair.swallow_replies = True

    def reset(self) -> None:
        """Ends all open connections abruptly; new ones work."""
        with self._lock:
            for pair in [pair for end, pair in self._pairs.items() if end is pair.client]:
                for end in (pair.client, pair.server):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                self._end(pair)

    def close(self) -> None:
        """Ends everything, the thread included."""
        self._ended.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the proxy's thread did not end"
        self.reset()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(POLL_S):
                with self._lock:
                    source = key.fileobj
                    assert isinstance(source, socket.socket)
                    if source is self._listener:
                        self._accept()
                    elif source in self._pairs:
                        self._forward(source)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        pair = _Pair(client, server)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.settimeout(5)
            self._pairs[end] = pair
            self._selector.register(end, selectors.EVENT_READ)

    def _forward(self, source: socket.socket) -> None:
        pair = self._pairs[source]
        try:
            data = source.recv(RECEIVE_BYTES)
            if not data:
                self._end(pair)
            elif source is pair.client:
                pair.server.sendall(data)
            elif pair.swallow_replies:
                self.replies_lost_count += 1
            else:
                pair.client.sendall(data)
        except OSError:
            self._end(pair)

    def _end(self, pair: _Pair) -> None:
        for end in (pair.client, pair.server):
            if self._pairs.pop(end, None) is not None:
                self._selector.unregister(end)
                end.close()
