"""The quorum arithmetic against a twin that is too dumb to be wrong: it tries every subset and every value."""

from collections.abc import Mapping
from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.messages import Configuration
from raftkv.raft.quorum import (
    UNBOUNDED,
    VOTE_LOST,
    VOTE_PENDING,
    VOTE_WON,
    has_quorum,
    joint_value,
    joint_vote,
    majority_value,
    majority_vote,
)

MEMBERS = st.integers(1, 9)
VOTERS = st.frozensets(MEMBERS, max_size=7)
ACKED = st.dictionaries(MEMBERS, st.integers(0, 12))
VOTES = st.dictionaries(MEMBERS, st.booleans())


def majorities(voters: frozenset[int]) -> list[set[int]]:
    """Every subset that is more than half."""
    return [
        set(subset)
        for size in range(len(voters) + 1)
        for subset in combinations(sorted(voters), size)
        if 2 * size > len(voters)
    ]


def dumb_value(voters: frozenset[int], acked: Mapping[int, int]) -> int:
    """The largest value that all members of some majority have reached, by trying every value."""
    if not voters:
        return UNBOUNDED
    return max(
        value
        for value in range(14)
        if any(all(acked.get(voter, 0) >= value for voter in majority) for majority in majorities(voters))
    )


def dumb_vote(voters: frozenset[int], votes: Mapping[int, bool]) -> str:
    """Won if some majority has granted; pending if it still could."""
    if not voters or any(all(votes.get(voter) is True for voter in majority) for majority in majorities(voters)):
        return VOTE_WON
    if any(all(votes.get(voter, True) for voter in majority) for majority in majorities(voters)):
        return VOTE_PENDING
    return VOTE_LOST


@given(VOTERS, ACKED)
def test_a_majority_agrees_as_far_as_the_twin_says(voters: frozenset[int], acked: dict[int, int]) -> None:
    assert majority_value(voters, acked) == dumb_value(voters, acked)


@given(VOTERS, VOTES)
def test_a_vote_ends_as_the_twin_says(voters: frozenset[int], votes: dict[int, bool]) -> None:
    assert majority_vote(voters, votes) == dumb_vote(voters, votes)


@given(VOTERS.filter(bool), VOTERS, ACKED)
def test_joint_agreement_is_what_both_majorities_reach(
    voters: frozenset[int], outgoing: frozenset[int], acked: dict[int, int]
) -> None:
    value = joint_value(Configuration(voters, outgoing), acked)
    assert value == min(dumb_value(voters, acked), dumb_value(outgoing, acked))


@given(VOTERS.filter(bool), VOTERS, VOTES)
def test_a_joint_vote_is_won_by_both_and_lost_by_either(
    voters: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]
) -> None:
    halves = {dumb_vote(voters, votes), dumb_vote(outgoing, votes)}
    expected = VOTE_LOST if VOTE_LOST in halves else VOTE_PENDING if VOTE_PENDING in halves else VOTE_WON
    assert joint_vote(Configuration(voters, outgoing), votes) == expected


@given(VOTERS, VOTERS, st.sets(MEMBERS))
def test_a_quorum_is_present_when_it_would_win_a_vote(
    voters: frozenset[int], outgoing: frozenset[int], present: set[int]
) -> None:
    votes = dict.fromkeys(present, True)
    expected = bool(voters) and dumb_vote(voters, votes) == dumb_vote(outgoing, votes) == VOTE_WON
    assert has_quorum(Configuration(voters, outgoing), present) is expected


@given(VOTERS.filter(bool), VOTERS.filter(bool), st.sets(MEMBERS), st.sets(MEMBERS))
def test_quorums_of_neighbouring_configurations_overlap(
    old: frozenset[int], new: frozenset[int], one: set[int], other: set[int]
) -> None:
    """4.3: from old over joint to new there are never two quorums that do not share a member."""
    joint = Configuration(new, old)
    for neighbour in (Configuration(old), joint, Configuration(new)):
        if has_quorum(neighbour, one) and has_quorum(joint, other):
            assert one & other


@given(VOTERS.filter(bool), ACKED, MEMBERS, st.integers(0, 12))
def test_learners_never_count(voters: frozenset[int], acked: dict[int, int], learner: int, value: int) -> None:
    """4.2.1."""
    if learner not in voters:
        configuration = Configuration(voters, learners=frozenset({learner}))
        assert joint_value(configuration, {**acked, learner: value}) == joint_value(configuration, acked)


def test_every_configuration_and_every_vote_of_three_members() -> None:
    """Small worlds completely, so that no corner is left to chance: both halves, learners in between, all votes, all indexes."""
    members = (1, 2, 3)
    halves = [frozenset(half) for size in range(4) for half in combinations(members, size)]
    for voters, outgoing in product(halves, halves):
        if not voters:
            continue
        configuration = Configuration(voters, outgoing, frozenset(members) - voters - outgoing)
        for ballots in product((True, False, None), repeat=3):
            votes = {member: ballot for member, ballot in zip(members, ballots, strict=True) if ballot is not None}
            ends = (dumb_vote(voters, votes), dumb_vote(outgoing, votes))
            expected = VOTE_LOST if VOTE_LOST in ends else VOTE_PENDING if VOTE_PENDING in ends else VOTE_WON
            assert joint_vote(configuration, votes) == expected
        for indexes in product(range(3), repeat=3):
            acked = dict(zip(members, indexes, strict=True))
            assert joint_value(configuration, acked) == min(dumb_value(voters, acked), dumb_value(outgoing, acked))
        for present in halves:
            expected_quorum = dumb_vote(voters, dict.fromkeys(present, True)) == VOTE_WON
            expected_quorum &= dumb_vote(outgoing, dict.fromkeys(present, True)) == VOTE_WON
            assert has_quorum(configuration, present) is expected_quorum


@given(VOTERS.filter(bool), VOTERS, ACKED, MEMBERS, st.integers(0, 12))
def test_more_acknowledgements_never_take_agreement_back(
    voters: frozenset[int], outgoing: frozenset[int], acked: dict[int, int], member: int, more: int
) -> None:
    configuration = Configuration(voters, outgoing)
    grown = {**acked, member: acked.get(member, 0) + more}
    assert joint_value(configuration, grown) >= joint_value(configuration, acked)


@given(VOTERS.filter(bool), VOTERS, VOTES, MEMBERS, st.booleans())
def test_a_decided_vote_stays_decided(
    voters: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool], member: int, ballot: bool
) -> None:
    """Whoever has not voted yet changes nothing about a vote that is won or lost."""
    configuration = Configuration(voters, outgoing)
    before = joint_vote(configuration, votes)
    if before != VOTE_PENDING and member not in votes:
        assert joint_vote(configuration, {**votes, member: ballot}) == before
