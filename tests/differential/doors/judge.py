"""Two servers, asked the same through the same doors: the judge of tests/differential, and what only a door shows.

Both begin a story with nothing in them, at one revision, with everything before it compacted; the one that is behind catches up by puts. Servers
that have disagreed are therefore not started anew.
"""

from random import Random
from typing import Any, Callable

from raftkv.etcdpb import rpc_pb2 as rpc
from tests.differential.doors.ends import COMPACT, DELETE, PUT, EitherEnd, End, GatewayEnd, GrpcEnd
from tests.differential.judge import LENGTH, Difference, Pair, run_seed, shown
from tests.differential.stories import operations_of

DOORS: dict[str, Callable[[str], End]] = {"grpc": GrpcEnd, "gateway": GatewayEnd, "either": EitherEnd}


class DoorPair(Pair):
    """A real etcd and a real raftkv, each behind a door."""

    def __init__(self, real: End, ours: End, seed: int) -> None:
        align(real, ours)
        self._seed = seed
        self._asked = 0
        self.is_behind = False  # whether ours may be behind the others of its cluster
        self._etcd: Any = real
        self.twin: Any = ours
        self._base = real.compact_revision - 1
        self._is_full = False
        self._watches = []

    def ask(self, method: Any, request: Any, where: str) -> tuple[Any, Any]:
        self._turn()
        if self.is_behind:
            request = linearizable(request)
        both = super().ask(method, request, where)
        if self._etcd.seen != self.twin.seen:
            lines = [
                f"{where}: {method.path}",
                shown(request),
                f"etcd:   {self._etcd.seen}",
                f"raftkv: {self.twin.seen}",
            ]
            raise Difference("\n".join(lines))
        return both

    def _watch(self, request: rpc.WatchCreateRequest, where: str) -> None:
        self._turn()
        super()._watch(request, where)

    def _turn(self) -> None:
        """Both choose alike how to ask what comes next."""
        self._asked += 1
        for end in (self._etcd, self.twin):
            end.turn(Random(self._seed * 1_000_003 + self._asked))


def linearizable(request: Any) -> Any:
    """A copy in which no range is content with what the member happens to have."""
    copy = type(request)()
    copy.CopyFrom(request)
    ranges = [copy] if isinstance(copy, rpc.RangeRequest) else []
    if isinstance(copy, rpc.TxnRequest):
        ranges = [each.request_range for each in operations_of(copy) if each.HasField("request_range")]
    for each in ranges:
        each.serializable = False
    return copy


def align(*ends: End) -> None:
    """Nothing in any of them, one revision, all before it compacted."""
    for end in ends:
        end.empty()
    target = max(end.revision for end in ends) + 2
    for end in ends:
        while end.revision < target - 1:
            end.call(PUT, rpc.PutRequest(key=b"align"))
        end.call(DELETE, rpc.DeleteRangeRequest(key=b"align"))
        assert end.revision == target
        end.call(COMPACT, rpc.CompactionRequest(revision=target))
        assert end.compact_revision == target


class Pairs:
    """Makes the two anew for each story. A context manager: connections end with it."""

    def __init__(self, real_endpoint: str, our_endpoint: str, door: str, seed: int, *, is_behind: bool = False) -> None:
        self._endpoints, self._door, self._seed = (real_endpoint, our_endpoint), door, seed
        self._is_behind = is_behind
        self._ends: list[End] = []

    def __call__(self) -> DoorPair:
        self.close()
        self._ends = [DOORS[self._door](endpoint) for endpoint in self._endpoints]
        real, ours = self._ends
        pair = DoorPair(real, ours, self._seed)
        pair.is_behind = self._is_behind
        return pair

    def __enter__(self) -> "Pairs":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._ends:
            self._ends.pop().close()


def run_door_seed(
    real_endpoint: str, our_endpoint: str, door: str, seed: int, length: int = LENGTH, *, is_behind: bool = False
) -> None:
    """Raises Difference with the shortest story that still shows one, and how to run it again. `is_behind`: ours is a follower."""
    with Pairs(real_endpoint, our_endpoint, door, seed, is_behind=is_behind) as make_pair:
        run_seed(make_pair, seed, length, replay=f"python -m tests.differential.doors {door}")
