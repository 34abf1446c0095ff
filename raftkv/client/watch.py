"""Watches on blocking sockets: each has a connection of its own, read by whoever iterates. A slow consumer is held back by TCP.

It imports nothing that the command line would have to wait for.
"""

from time import monotonic, sleep
from typing import Callable, Final

from raftkv.client import verdict
from raftkv.client.blocking import Caller
from raftkv.client.blockingconn import BlockingConnection, Lost
from raftkv.client.options import Options, draw
from raftkv.client.watchface import BlockingWatch
from raftkv.client.watchstate import Places, WatchState, is_passing
from raftkv.errors import RaftKVError

SILENCE_ATTEMPTS: Final = 3  # so many attempts' time without a sign of life, and the member is left


class Watch(BlockingWatch):
    """A watch on raftkv itself, whose connection comes back by itself."""

    def __init__(
        self,
        caller: Caller,
        options: Options,
        state: WatchState,
        timeout_s: float,
        patience_s: float | None,
        on_closed: "Callable[[Watch], None]",
    ) -> None:
        super().__init__(state, timeout_s, patience_s, on_closed)
        self._caller = caller
        self._options = options
        self._places = Places(caller.directory, draw)
        self._connection: BlockingConnection | None = None
        self._request_id = 0
        self._reading = False

    def _let_go(self) -> None:
        with self._lock:
            connection = self._connection
            if connection is not None:
                if self._reading:
                    connection.interrupt()
                else:
                    connection.close()
                    self._connection = None

    # The connection.

    def _read_until(self, done: Callable[[], bool]) -> None:
        with self._lock:
            self._reading = True
        try:
            while not done():
                if self._closed is not None:
                    raise self._closed
                if self._connection is None:
                    self._connect()
                else:
                    self._read(self._connection)
        finally:
            with self._lock:
                self._reading = False
                if self._closed is not None and self._connection is not None:
                    self._connection.close()
                    self._connection = None

    def _connect(self) -> None:
        """One attempt at one member."""
        with self._caller.directory_lock:
            address, pause_s = self._places.choose(monotonic())
        if pause_s:
            sleep(pause_s)
        options = self._options
        wire = options.new_wire(None)
        try:
            connection = BlockingConnection.open(
                address, wire, monotonic() + options.connect_timeout_s, tls=options.tls
            )
        except RaftKVError as error:
            self._on_failed(address, error)
            return
        with self._lock:
            self._connection = connection
        assert wire.handshake is not None, "an open connection was greeted"
        try:
            with self._caller.directory_lock:
                self._caller.directory.on_handshake(address, wire.handshake)
            self._request_id = connection.send(self._state.command(), 0, monotonic() + options.attempt_timeout_s)
        except RaftKVError as error:
            if error.code != "cluster_mismatch":
                raise
            self._lose(connection, error)
        except OSError as error:
            self._lose(connection, verdict.lost(error))

    def _read(self, connection: BlockingConnection) -> None:
        every_s = self._options.attempt_timeout_s
        try:
            answers = connection.receive_all(monotonic() + every_s)
        except TimeoutError:
            self._ask_for_sign(connection, every_s)
            return
        except Lost as error:
            self._lose(connection, error.reason)
            return
        except OSError as error:
            self._lose(connection, verdict.lost(error))
            return
        for request_id, answer in answers:
            if request_id != self._request_id:
                continue  # a sign of life
            try:
                self._batches.extend(self._state.receive(answer))
            except RaftKVError as error:
                if not is_passing(error, self._options.login):
                    self._end(error, quietly=False)
                    return
                self._lose(connection, error)
                return
            self._lost_at = 0.0
            self._places.on_served()
        if connection.wire.broken is not None:
            self._lose(connection, connection.wire.broken)

    def _ask_for_sign(self, connection: BlockingConnection, every_s: float) -> None:
        now = monotonic()
        if now - connection.heard_at > SILENCE_ATTEMPTS * every_s:
            self._lose(connection, verdict.silence(False))
            return
        try:
            connection.probe(now + every_s)
        except OSError as error:
            self._lose(connection, verdict.lost(error))

    def _lose(self, connection: BlockingConnection, error: RaftKVError) -> None:
        with self._lock:
            self._connection = None
        connection.close()
        self._on_failed(connection.address, error)

    def _on_failed(self, address: str, error: RaftKVError) -> None:
        now = monotonic()
        self._lost_at = self._lost_at or now
        with self._caller.directory_lock:
            fatal = self._places.on_failed(address, now, error)
        if fatal is not None:
            self._end(fatal, quietly=False)
        self._end_if_too_late(error)
