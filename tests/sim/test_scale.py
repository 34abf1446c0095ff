"""The part of the scale check that is run every time: far links with loss, where elections converge and rates are those on paper."""

from random import Random
from statistics import mean

import pytest

from .scale import Place, election_on_paper, measure, reads_on_paper, split_share, writes_on_paper

ELECTIONS = 15
REPEATS_MAX = 5  # in a row; each is a split with a chance below one in five
QUICK_S = 10.0


@pytest.mark.parametrize("members", [5, 7])
@pytest.mark.parametrize("round_trip_us", [200_000, 400_000])
def test_far_members_with_loss(members: int, round_trip_us: int) -> None:
    place = Place(members, round_trip_us, 0.01)
    measured = measure(place, elections=ELECTIONS, seconds=QUICK_S)
    assert measured.disturbed == 0, "distance and loss alone cost nobody his office"
    fewest, most = writes_on_paper(place)
    assert 0.9 * fewest <= measured.writes <= most
    fewest, most = reads_on_paper(place)
    assert 0.9 * fewest <= measured.reads <= most
    expected_s, _ = election_on_paper(place)
    assert max(measured.terms) <= REPEATS_MAX
    assert 0.5 * expected_s <= mean(measured.elections_s) <= 2 * expected_s


def test_throughput_falls_with_distance_and_not_with_the_number_of_members() -> None:
    near, far, farther = (writes_on_paper(Place(5, round_trip_us, 0.0)) for round_trip_us in (0, 200_000, 400_000))
    assert near[0] > far[1] > farther[1]
    assert far[0] > farther[0]
    assert writes_on_paper(Place(7, 200_000, 0.0)) == far


def test_the_chance_of_a_split_by_a_dumb_twin() -> None:
    """Draw it: the first of the members that are left gets the votes of all that stand later than the window."""
    random = Random(1)
    for members, window in ((5, 0.1), (5, 0.2), (7, 0.2)):
        left, needed = members - 1, members // 2 + 1
        splits = 0
        for _ in range(20_000):
            first, *others = sorted(random.random() for _ in range(left))
            splits += 1 + sum(draw - first > window for draw in others) < needed
        assert abs(splits / 20_000 - split_share(members, window)) < 0.01
