"""Passwords against their hashes, in a thread, one at a time; and what was found to fit is remembered for as long as the hash is the same.

After a failover all clients log in at the new leader within a second, most of them as one of a few users. Each password is
compared once: who asks for the same meanwhile shares the answer, and later it is found by a fast digest under a key that this process
drew for itself. Only what fits is remembered, so a wrong guess costs the whole time, every time.
"""

import asyncio
import os
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from typing import Any, Callable

from raftkv.errors import Overloaded, ShuttingDown
from raftkv.wire.passwords import verify_password

REMEMBERED_MAX = 10_000


class Comparing:
    """Owned by the loop. `waiting_max` bounds what waits for the thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waiting_max: int) -> None:
        self._loop = loop
        self._waiting_max = waiting_max
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="logins")
        self._key = os.urandom(32)
        self._fitting: OrderedDict[bytes, None] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[bool]] = {}
        self.turned_away = 0

    async def fits(self, password: str, text: str) -> bool:
        """Whether a password has this hash. Raises Overloaded or ShuttingDown."""
        name = self._name(password, text)
        if name in self._fitting:
            self._fitting.move_to_end(name)
            return True
        task = self._under_way.get(name)
        if task is None:
            task = self._under_way[name] = self._loop.create_task(self._compare(name, password, text))
            task.add_done_callback(lambda done: self._on_compared(name, done))
        return await asyncio.shield(task)  # whoever goes away takes it from nobody else

    async def _compare(self, name: bytes, password: str, text: str) -> bool:
        found: bool = await self.run(lambda: verify_password(password, text))
        if found:
            self._fitting[name] = None
            if len(self._fitting) > REMEMBERED_MAX:
                self._fitting.popitem(last=False)
        return found

    def _on_compared(self, name: bytes, done: "asyncio.Task[bool]") -> None:
        del self._under_way[name]
        if not done.cancelled():
            done.exception()  # taken: perhaps nobody waits any more

    async def run(self, work: Callable[[], Any]) -> Any:
        """Something else for the same thread. Raises Overloaded or ShuttingDown."""
        if self._waiting >= self._waiting_max:
            self.turned_away += 1
            raise Overloaded("too many logins wait on this member")
        self._waiting += 1
        try:
            return await self._loop.run_in_executor(self._thread, work)
        except RuntimeError as error:  # the thread is gone
            raise ShuttingDown() from error
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Whoever waits is told so."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _name(self, password: str, text: str) -> bytes:
        digest = blake2b(key=self._key, digest_size=32)
        digest.update(text.encode())
        digest.update(b"\0")
        digest.update(password.encode(errors="surrogatepass"))
        return digest.digest()


__all__ = ["Comparing"]
