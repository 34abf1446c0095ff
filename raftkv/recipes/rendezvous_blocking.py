"""Rendezvous for threads: the store of rendezvous.py, whose calls are done when they return."""

from typing import Sequence

from raftkv.client.requests import Bytes
from raftkv.recipes.rendezvous import AsyncStore
from raftkv.recipes.verbs import run
from raftkv.units import Revision


class Store:
    """The store of a rendezvous; made by `kv.rendezvous(run_id, round_)`. Methods are named as TCPStore's, and do as they do."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    @property
    def timeout(self) -> float:
        """Seconds that `get`, `wait`, `barrier` and the like wait at most, unless they are told otherwise."""
        return self._store.timeout

    @property
    def token(self) -> Revision | None:
        """The fencing token of the life of the round that we are in; None before our first write. Another one: another life."""
        return self._store.token

    def set_timeout(self, timeout: float) -> None:
        """For this store; clones and prefixed stores have their own."""
        self._store.set_timeout(timeout)

    def set(self, key: Bytes, value: Bytes) -> None:
        """Write; wakes who waits."""
        run(self._store.set(key, value))

    def get(self, key: Bytes, timeout: float | None = None) -> bytes:
        """The value, once it exists. Raises DeadlineExceeded."""
        return run(self._store.get(key, timeout))

    def add(self, key: Bytes, amount: int) -> int:
        """Add to a number, which begins at 0 and is decimal text for `get`. Returns the new one. Raises NotANumber."""
        return run(self._store.add(key, amount))

    def append(self, key: Bytes, value: Bytes) -> None:
        """Append to a value, which begins empty."""
        run(self._store.append(key, value))

    def compare_set(self, key: Bytes, expected: Bytes, desired: Bytes) -> bytes:
        """Write `desired` if the value is `expected`, or if there is none and `expected` is empty. What the value is then.

        Where there is none, and `expected` is not empty, nothing is written and `expected` is returned.
        """
        return run(self._store.compare_set(key, expected, desired))

    def check(self, keys: Sequence[Bytes]) -> bool:
        """Whether all exist; True for none."""
        return run(self._store.check(keys))

    def wait(self, keys: Sequence[Bytes], timeout: float | None = None) -> None:
        """Until all exist; a queue that is not empty counts. Raises DeadlineExceeded."""
        run(self._store.wait(keys, timeout))

    def multi_get(self, keys: Sequence[Bytes], timeout: float | None = None) -> list[bytes]:
        """The values, once all exist. Raises DeadlineExceeded."""
        return run(self._store.multi_get(keys, timeout))

    def multi_set(self, keys: Sequence[Bytes], values: Sequence[Bytes]) -> None:
        """Write all: up to 64 at once, more in parts. Raises InvalidRequest."""
        run(self._store.multi_set(keys, values))

    def delete_key(self, key: Bytes) -> bool:
        """Whether there was one."""
        return run(self._store.delete_key(key))

    def num_keys(self) -> int:
        """Of the whole round, also through a prefix; queues are not counted."""
        return run(self._store.num_keys())

    def list_keys(self) -> list[bytes]:
        """Those with this store's prefix, without it; queues are not listed."""
        return run(self._store.list_keys())

    def queue_push(self, key: Bytes, value: Bytes) -> None:
        """Append to a queue, first in first out; wakes who waits."""
        run(self._store.queue_push(key, value))

    def queue_pop(self, key: Bytes, block: bool = True, timeout: float | None = None) -> bytes:
        """The first of a queue, once there is one. Raises DeadlineExceeded, or QueueEmpty without `block`."""
        return run(self._store.queue_pop(key, block, timeout))

    def queue_len(self, key: Bytes) -> int:
        """How many are in a queue."""
        return run(self._store.queue_len(key))

    def barrier(self, key: Bytes, world_size: int, timeout: float | None = None) -> None:
        """Until `world_size` have come. Once per key: a second barrier on it is passed at once. Raises DeadlineExceeded."""
        run(self._store.barrier(key, world_size, timeout))

    def prefixed(self, prefix: Bytes) -> "Store":
        """The same store with `prefix/` in front of all keys; prefixes of prefixes stand in front of each other, as PrefixStore's do."""
        return Store(self._store.prefixed(prefix))

    def clone(self) -> "Store":
        """Another one of the same, with its own timeout."""
        return Store(self._store.clone())

    def close(self) -> None:
        """Keep the round alive no more: it ends when the last participant has stopped for as long as its `ttl`."""
        run(self._store.close())

    def __enter__(self) -> "Store":
        run(self._store.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close()
