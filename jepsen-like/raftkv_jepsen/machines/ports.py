"""Ports that no other test takes, also across parallel test processes.

Asking the kernel for port 0 and closing the socket gives a number that the next outgoing connection may get. These come
from below the ephemeral range, and each is reserved by an abstract Unix socket: the kernel drops the reservation with the
process that held it, however it ends.
"""

import random
import socket

FIRST_PORT = 10_000
LAST_PORT = 32_000
ATTEMPTS_MAX = 1_000


class PortReservations:
    """Hands out ports and keeps them reserved until closed."""

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """A port on which nothing listens and that no other test process has taken."""
        # Not the seeded generator: two test processes may share a seed, and would then race for the same ports.
        draw = random.SystemRandom()
        for _ in range(ATTEMPTS_MAX):
            port = draw.randint(FIRST_PORT, LAST_PORT)
            if self._reserve(port):
                return port
        raise AssertionError(f"no free port found between {FIRST_PORT} and {LAST_PORT}")

    def take_consecutive(self, count: int) -> int:
        """The first of `count` ports in a row."""
        for _ in range(ATTEMPTS_MAX):
            first = self.take()
            if all(self._reserve(port) for port in range(first + 1, first + count)):
                return first
        raise AssertionError(f"no {count} free ports in a row")

    def _reserve(self, port: int) -> bool:
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            reservation.bind(f"\0raftkv-test-port-{port}")
        except OSError:
            reservation.close()
            return False
        if not _is_free(port):
            reservation.close()
            return False
        self._held.append(reservation)
        return True

    def close(self) -> None:
        """Gives all ports back."""
        while self._held:
            self._held.pop().close()


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
