"""Counter: a number that any number of clients change at once, each call counted once.

No trick in here: INCREMENT is a command of the cluster, done where the number is, and a retry returns the first answer.
"""

from typing import TYPE_CHECKING

from raftkv.client.requests import Bytes, as_bytes
from raftkv.errors import NotANumber
from raftkv.recipes.places import prefix_of
from raftkv.recipes.verbs import Verbs, blocking, run

if TYPE_CHECKING:
    from raftkv.client.sync import Client


class AsyncCounter:
    """A number of 64 bits, at first 0; made by `kv.counter(name)`. Its key is its name, its value decimal text."""

    def __init__(self, kv: Verbs, name: Bytes) -> None:
        prefix_of(name)
        self._kv = kv
        self._name = as_bytes(name)

    async def add(self, delta: int = 1, *, timeout: float | None = None) -> int:
        """Add, or subtract. Returns the new number, which nobody else was given. Raises NotANumber at the end of 64 bits."""
        return await self._kv.increment(self._name, delta, timeout=timeout)

    async def value(self, *, timeout: float | None = None) -> int:
        """The number now. Raises NotANumber."""
        kv = await self._kv.get_kv(self._name, timeout=timeout)
        try:
            return 0 if kv is None else int(kv.value)
        except ValueError:
            raise NotANumber() from None

    async def set(self, number: int, *, timeout: float | None = None) -> None:
        """Begin at another number."""
        await self._kv.put(self._name, str(int(number)), timeout=timeout)


class Counter:
    """A number of 64 bits, at first 0; made by `kv.counter(name)`. Its key is its name, its value decimal text."""

    def __init__(self, kv: "Client", name: Bytes) -> None:
        self._counter = AsyncCounter(blocking(kv), name)

    def add(self, delta: int = 1, *, timeout: float | None = None) -> int:
        """Add, or subtract. Returns the new number, which nobody else was given. Raises NotANumber at the end of 64 bits."""
        return run(self._counter.add(delta, timeout=timeout))

    def value(self, *, timeout: float | None = None) -> int:
        """The number now. Raises NotANumber."""
        return run(self._counter.value(timeout=timeout))

    def set(self, number: int, *, timeout: float | None = None) -> None:
        """Begin at another number."""
        run(self._counter.set(number, timeout=timeout))
