"""All gRPC connections of a member: made for the client port, told of its shutdown, and of a leader that is missing for too long."""

import asyncio
from typing import Callable, Final

from raftkv.daemon.api.grpc import GrpcConnection
from raftkv.daemon.api.grpc_calls import Hoard, Shared
from raftkv.daemon.api.grpc_pulse import Pulse
from raftkv.daemon.etcd.house import House
from raftkv.http2.patience import Allowance
from raftkv.units import Milliseconds

LOOK_INTERVAL_S: Final = 0.5
GOAWAY_GRACE_S: Final = 0.1  # a round trip, in which a client hears that it should begin nothing new


class GrpcDoor:
    """A factory of connections for daemon/mux.py."""

    def __init__(
        self,
        house: House,
        leader_wait_ms: Milliseconds,
        certificate_name: Callable[..., str],
        pulse: Pulse = Pulse(),  # noqa: B008 (a tuple)
    ) -> None:
        self.house = house
        self.pulse = pulse
        per_second = house.limits.gzip_bytes_per_second_max
        self.shared = Shared(
            Hoard(house.limits.http2_partial_bytes_total_max), Allowance(per_second // 4, per_second)
        )  # not all at once: the loop is held for it
        self.certificate_name: Callable[[asyncio.Transport], str] = certificate_name
        self._leader_wait_s = leader_wait_ms / 1000  # etcd's: three election timeouts
        self._connections: set[GrpcConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._leaderless_since: float | None = None
        self._is_closing = False

    def __call__(self) -> GrpcConnection:
        return GrpcConnection(self)

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: GrpcConnection) -> None:
        """It is open."""
        self._connections.add(connection)
        if self._is_closing:
            connection.announce_shutdown()
            connection.refuse_new()
        elif self._timer is None:
            self._timer = connection.loop.call_later(LOOK_INTERVAL_S, self._look)

    def remove(self, connection: GrpcConnection) -> None:
        """It is gone."""
        self._connections.discard(connection)
        if not self._connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def begin_shutdown(self) -> None:
        """GOAWAY in two steps (RFC 9113, 6.8): clients open new connections elsewhere, and no request of theirs is lost.

        Returns when none can come any more, so that what is drained then is all.
        """
        self._is_closing = True
        if not self._connections:
            return
        for connection in self._connections:
            connection.announce_shutdown()
        await asyncio.sleep(GOAWAY_GRACE_S)
        for connection in self._connections:
            connection.refuse_new()

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_INTERVAL_S, self._look)
        self._share_streams()
        if self.house.view.knows_leader:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = loop.time()
        elif loop.time() - self._leaderless_since >= self._leader_wait_s:
            for connection in list(self._connections):
                connection.end_streams_without_leader()

    def _share_streams(self) -> None:
        """While all connections together have too many calls open, none may have more than its share of what there may be."""
        limits = self.house.limits
        open_streams = sum(len(connection.connection.streams) for connection in self._connections)
        streams_max = limits.http2_streams_max
        if open_streams > limits.http2_streams_total_max:
            streams_max = min(streams_max, max(1, limits.http2_streams_total_max // len(self._connections)))
        for connection in self._connections:
            connection.connection.streams_max = streams_max
