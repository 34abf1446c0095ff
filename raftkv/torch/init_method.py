"""`init_process_group(init_method="raftkv://a:2379,b:2379/RUN")`: the ranks meet in the cluster, and no host of theirs is special."""

import os
from datetime import timedelta
from typing import Any, Final, Iterator

from raftkv.errors import ConfigError
from raftkv.torch.store import RaftKVStore
from raftkv.torch.where import read_url

SCHEME: Final = "raftkv"


def rendezvous(
    url: str, timeout: timedelta = timedelta(minutes=5), **unused: Any
) -> Iterator[tuple[RaftKVStore, int, int]]:
    """A store, the rank and the size of the world, as torch.distributed.rendezvous wants them. Raises ConfigError (a ValueError)."""
    where = read_url(url, os.environ)
    if where.rank is None or where.world_size is None:
        raise ConfigError(
            f"{url}: rank and world_size are given to init_process_group, in the URL, or in RANK and WORLD_SIZE"
        )
    store = RaftKVStore(where.endpoints, where.run_id, where.round, ttl=where.ttl_s, **where.client)
    store.set_timeout(timeout)
    yield store, where.rank, where.world_size
    raise RuntimeError("torch asks for another rendezvous of the same round: give it another round")
