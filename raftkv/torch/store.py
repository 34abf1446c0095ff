"""torch.distributed.Store on a raftkv cluster: what TCPStore does, without a rank 0 whose host must not die.

C++ reaches the object through a PrefixStore and calls only what torch dispatches to Python (some of it in camelCase); calls come from
threads of C++ too. A blocking client serves any number of threads and gives the interpreter away while it waits. torch drops the
Python half of a store that only C++ holds (pytorch#106633), so every store is remembered here until it is closed.
"""

from datetime import timedelta
from typing import Any, Callable, Final, TypeVar

import torch.distributed as dist

from raftkv.errors import DeadlineExceeded, QueueEmpty, RaftKVError
from raftkv.recipes.clients import Client
from raftkv.recipes.rendezvous_blocking import Store
from raftkv.torch.where import CALL_TIMEOUT_S

T = TypeVar("T")

_alive: Final[set["RaftKVStore"]] = set()


class RaftKVStore(dist.Store):
    """The store of one run and round: `RaftKVStore("a:2379,b:2379", "run-7", 1)`.

    `ttl`: seconds after which the round is forgotten once nobody keeps it alive. Further arguments are those of `raftkv.Client`; its `timeout` (30 s here)
    is that of calls that wait for nobody.
    Calls that wait do so for `timeout` at most (300 s, as TCPStore; `set_timeout` changes it) and then raise DistStoreError.
    """

    def __init__(
        self,
        endpoints: str,
        run_id: str,
        round_: int = 0,
        *,
        ttl: float = 30.0,
        store: Store | None = None,
        **client: Any,
    ) -> None:
        super().__init__()
        self._client = None if store is not None else Client(endpoints, **{"timeout": CALL_TIMEOUT_S, **client})
        if store is None:
            assert self._client is not None, "no store is given"
            store = self._client.rendezvous(run_id, round_, ttl=ttl)
        self._store = store
        _alive.add(self)

    # Required by torch.

    def set(self, key: str | bytes, value: str | bytes) -> None:
        _told(lambda: self._store.set(key, value))

    def get(self, key: str | bytes) -> bytes:
        return _told(lambda: self._store.get(key, self._seconds()))

    def add(self, key: str | bytes, amount: int) -> int:
        return _told(lambda: self._store.add(key, amount))

    def compare_set(self, key: str | bytes, expected: str | bytes, desired: str | bytes) -> bytes:
        return _told(lambda: self._store.compare_set(key, expected, desired))

    def check(self, keys: list[str]) -> bool:
        return _told(lambda: self._store.check(keys))

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        seconds = self._seconds() if timeout is None else timeout.total_seconds()
        _told(lambda: self._store.wait(keys, seconds))

    def delete_key(self, key: str | bytes) -> bool:
        return _told(lambda: self._store.delete_key(key))

    def num_keys(self) -> int:
        return _told(self._store.num_keys)

    def clone(self) -> "RaftKVStore":
        """Another one on the same connections, with the same timeout."""
        copy = RaftKVStore("", "", store=self._store.clone())
        copy.set_timeout(self.timeout)
        return copy

    deleteKey = delete_key
    getNumKeys = num_keys
    compareSet = compare_set

    # What torch asks for with has_extended_api, and calls of Python's own.

    def has_extended_api(self) -> bool:
        return True

    hasExtendedApi = has_extended_api

    def append(self, key: str | bytes, value: str | bytes) -> None:
        _told(lambda: self._store.append(key, value))

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return _told(lambda: self._store.multi_get(keys, self._seconds()))

    def multi_set(self, keys: list[str], values: list[str | bytes]) -> None:
        _told(lambda: self._store.multi_set(keys, values))

    multiGet = multi_get
    multiSet = multi_set

    def queue_push(self, key: str, value: str | bytes) -> None:
        _told(lambda: self._store.queue_push(key, value))

    def queue_pop(self, key: str, block: bool = True) -> bytes:
        return _told(lambda: self._store.queue_pop(key, block, self._seconds()))

    def queue_len(self, key: str) -> int:
        return _told(lambda: self._store.queue_len(key))

    def list_keys(self) -> list[str]:
        return [key.decode() for key in _told(self._store.list_keys)]

    def barrier(self, key: str, world_size: int, timeout: timedelta | None = None) -> None:
        seconds = self._seconds() if timeout is None else timeout.total_seconds()
        _told(lambda: self._store.barrier(key, world_size, seconds))

    def close(self) -> None:
        """Keep the round alive no more; connections close when the first store of a job does."""
        _alive.discard(self)
        if self._client is not None:
            _told(self._store.close)
            self._client.close()

    def _seconds(self) -> float:
        seconds: float = self.timeout.total_seconds()
        return seconds


def _told(call: Callable[[], T]) -> T:
    """What torch's code expects in the place of our errors."""
    try:
        return call()
    except QueueEmpty as error:
        raise dist.QueueEmptyError(error.message) from error
    except DeadlineExceeded as error:
        raise dist.DistStoreError(error.message) from error
    except RaftKVError as error:
        raise dist.DistNetworkError(f"{error.code}: {error.message}") from error


__all__ = ["RaftKVStore"]
