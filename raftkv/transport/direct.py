"""Writes that leave at once.

uvloop puts off what is written to the end of the loop's turn, behind a poll in which the journal's thread may take the
interpreter. A batch that is complete has nothing to wait for: it goes straight to the socket, and only what the socket does not
take goes through the transport.
"""

import asyncio
import os

_NO_SOCKET = -1


def socket_of(transport: asyncio.Transport) -> int:
    """The descriptor for write_at_once; negative when the transport has none (TLS, tests)."""
    if transport.get_extra_info("sslcontext") is not None:
        return _NO_SOCKET
    sock = transport.get_extra_info("socket")
    return _NO_SOCKET if sock is None else int(sock.fileno())


def write_at_once(transport: asyncio.Transport, descriptor: int, data: bytes) -> None:
    """Write to an open transport, in order with whatever it still holds. Errors are left for the transport to find."""
    if descriptor >= 0 and not transport.is_closing() and not transport.get_write_buffer_size():
        try:
            sent = os.write(descriptor, data)
        except OSError:  # would block, or is broken: the transport finds out
            sent = 0
        if sent == len(data):
            return
        data = data[sent:]
    transport.write(data)
