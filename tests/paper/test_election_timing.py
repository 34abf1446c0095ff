"""Claims of chapter 9 about how long an election takes, from many drawn timeouts; time is in ticks, messages take less than one."""

from random import Random
from statistics import mean

import pytest

from raftkv.raft.messages import RequestVote
from tests.unit.raft.cluster import Cluster
from tests.unit.raft.solo import cluster_of

TIMEOUT = 40  # as in production: 40 ticks of 25 ms, drawn from [40, 79]
SEEDS = 120


def after_a_crash(seed: int, *, size: int = 5, spread: int = TIMEOUT, logs: list[list[int]] | None = None) -> Cluster:
    """A cluster whose leader is gone: the last of `size` is down, the others heard it just now and draw their timeouts anew."""
    settings = {"election_timeout_ticks": TIMEOUT, "heartbeat_ticks": 4, "pre_vote": False}
    cluster = cluster_of(logs or [[1]] * size, term=1, **settings)  # type: ignore[arg-type]
    cluster.crash(size)
    random = Random(seed)
    for node in cluster.nodes.values():
        node.draw = lambda low, high: random.randrange(low, low + spread) if spread else low
        node.start() if node.alive else None
    return cluster


def ticks_to_a_leader(cluster: Cluster, ticks_max: int = 2_000) -> int | None:
    """How long it takes; None if it takes too long."""
    for ticks in range(1, ticks_max + 1):
        cluster.tick()
        if cluster.leader() is not None:
            return ticks
    return None


def test_the_first_timeout_decides_when_no_votes_are_split() -> None:
    """9.1: with s servers the first of s draws ends, on average, 1/(s+1) into the interval; one round of messages later it leads."""
    elections = [after_a_crash(seed) for seed in range(SEEDS)]
    took = [ticks_to_a_leader(cluster) for cluster in elections]
    first_time = [
        ticks
        for ticks, cluster in zip(took, elections, strict=True)
        if ticks is not None and list(cluster.leaders) == [2]
    ]
    assert len(first_time) > SEEDS * 0.7
    assert mean(first_time) == pytest.approx(TIMEOUT * (1 + 1 / 5), rel=0.05)
    assert max(first_time) < 2 * TIMEOUT


def split_votes(spread: int) -> float:
    """The share of first terms without a leader."""
    split = 0
    for seed in range(SEEDS):
        cluster = after_a_crash(seed, spread=spread)
        cluster.tick_until(lambda: any(node.raft.term > 1 for node in cluster.nodes.values()))  # noqa: B023
        split += not cluster.leaders
    return split / SEEDS


def test_split_votes_become_rare_when_timeouts_are_spread() -> None:
    """9.2: the wider the interval in comparison to the broadcast time, the fewer."""
    shares = [split_votes(spread) for spread in (0, 4, 12, TIMEOUT)]
    assert shares[0] == 1.0, "who times out together votes for itself together"
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.2


def test_without_any_spread_nobody_is_ever_elected() -> None:
    """9.3, 3.4: this is what randomness is for."""
    assert ticks_to_a_leader(after_a_crash(0, spread=0)) is None


def test_elections_with_split_votes_end_soon() -> None:
    """9.3: each further term is another draw, so long series are unlikely."""
    terms: list[int] = []
    for seed in range(SEEDS):
        cluster = after_a_crash(seed, spread=12)
        assert ticks_to_a_leader(cluster) is not None
        terms.append(next(iter(cluster.leaders)) - 1)
    assert max(terms) > 1, "there were split votes"
    assert mean(terms) < 2
    assert max(terms) <= 6


def test_members_with_shorter_logs_delay_an_election_and_never_win_it() -> None:
    """9.5: of nine, the leader is down, five lack its last entry, and three can win."""
    logs = [[1, 1]] * 3 + [[1]] * 4 + [[1, 1]] * 2
    worst = 0
    for seed in range(SEEDS // 4):
        cluster = after_a_crash(seed, size=9, logs=logs)
        took = ticks_to_a_leader(cluster)
        assert took is not None
        worst = max(worst, took)
        (winner,) = cluster.leaders.values()
        assert winner in (1, 2, 3, 8)
    assert worst > 2 * TIMEOUT, "some had to wait for those who ran in vain"


@pytest.mark.parametrize("pre_vote", [False, True])
def test_a_rejoining_server_costs_an_election_without_pre_vote_and_nothing_with_it(pre_vote: bool) -> None:
    """9.6: it raised its term while it was alone; check-quorum is off, so that nothing else keeps the others together."""
    cluster = Cluster(3, pre_vote=pre_vote, check_quorum=False)
    cluster.elect(1)
    cluster.isolate(3)
    cluster.tick(50)
    cluster.write(b"x")
    cluster.heal()
    cluster.history.clear()
    cluster.tick(50)
    terms = {node.raft.term for node in cluster.nodes.values()}
    assert (terms == {1}) is pre_vote
    assert any(isinstance(m, RequestVote) and not m.pre_vote for m in cluster.history) is not pre_vote
