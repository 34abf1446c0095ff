"""When a leader hands over to a member that is preferred to it, and when it does not."""

import itertools

from raftkv.raft.messages import Configuration
from raftkv.replica.preference import CAUGHT_UP_MS, LED_MS, PAUSE_MS_MAX, PAUSE_MS_MIN, STAYED_MS, Preference
from tests.unit.raft.cluster import HEARTBEAT, TIMEOUT
from tests.unit.raft.solo import Solo

LOOK_MS = 500
SECOND = {2: 5}


class Office:
    """Member 1 leads; 2 and 3 answer and acknowledge all, unless the test says otherwise. A tick is 25 ms, a look 20 of them."""

    def __init__(self, **settings: object) -> None:
        self.solo = Solo(**settings)  # type: ignore[arg-type]
        self.solo.lead()
        self.preference = Preference(self.solo.raft)
        self.now_ms = 0
        self.answering = {2, 3}
        self.acknowledging = {2, 3}

    def pass_time(
        self, milliseconds: int, priorities: dict[int, int], *, is_well: bool = True
    ) -> list[tuple[int, int]]:
        """Looks at their times; returns (ms, target) of every transfer begun."""
        begun = []
        end_ms = self.now_ms + milliseconds
        while self.now_ms < end_ms:
            self.now_ms += LOOK_MS
            for _ in range(LOOK_MS // 25 // HEARTBEAT):
                self.solo.tick(HEARTBEAT)
                for peer in sorted(self.answering):
                    self.solo.step(self.solo.heartbeat_response(peer, 0))
                for peer in sorted(self.acknowledging & self.answering):
                    self.solo.step(self.solo.accept(peer, self.solo.raft.last_index))
            target = self.preference.look(self.now_ms, priorities, is_well=is_well)
            if target is not None:
                begun.append((self.now_ms, target))
        return begun

    def write(self) -> None:
        self.solo.raft.propose(1, b"x")
        self.solo.drain()


def test_without_priorities_nothing_happens() -> None:
    office = Office()
    assert office.pass_time(60_000, {}) == []
    assert office.pass_time(60_000, {1: 3, 2: 3, 3: 3}) == []
    assert office.pass_time(60_000, {1: 9, 2: 5}) == [], "this member is the preferred one"


def test_it_waits_until_it_has_led_for_a_while() -> None:
    office = Office()
    (first, *_) = office.pass_time(LED_MS + LOOK_MS, SECOND)
    assert first == (LED_MS + LOOK_MS, 2), "counted from the first look"
    assert office.solo.raft.transfer_target == 2


def test_the_best_of_those_that_are_able_is_taken() -> None:
    office = Office()
    office.answering = office.acknowledging = {2}
    assert office.pass_time(LED_MS + LOOK_MS, {1: 1, 2: 5, 3: 9}) == [(LED_MS + LOOK_MS, 2)]
    office = Office()
    assert office.pass_time(LED_MS + LOOK_MS, {1: 1, 2: 5, 3: 9})[0][1] == 3


def test_one_that_lags_or_whose_disk_is_stalled_is_left_alone() -> None:
    """It answers heartbeats, and what it was sent half a second ago is not on its disk."""
    office = Office()
    office.acknowledging = {3}
    office.write()
    assert office.pass_time(30_000, SECOND) == []
    office.acknowledging = {2, 3}
    returned_ms = office.now_ms
    ((begun_ms, target),) = office.pass_time(CAUGHT_UP_MS + LOOK_MS, SECOND)
    assert target == 2
    assert begun_ms - returned_ms >= CAUGHT_UP_MS, "not at once"


def test_one_that_is_behind_only_by_what_is_under_way_is_able() -> None:
    """Under load nobody ever has everything."""
    office = Office()
    office.acknowledging = set()
    begun = []
    for _ in range(2 * LED_MS // LOOK_MS):
        office.write()
        office.solo.step(
            office.solo.accept(2, office.solo.raft.last_index), office.solo.accept(3, office.solo.raft.last_index)
        )
        office.write()  # on its way when the look comes
        begun += office.pass_time(LOOK_MS, SECOND)
        if begun:
            break
    assert begun, "it was caught up at every look"


def test_one_that_is_silent_is_left_alone() -> None:
    office = Office()
    office.answering = {3}
    assert office.pass_time(30_000, SECOND) == []


def test_a_learner_is_never_handed_the_office() -> None:
    office = Office(configuration=Configuration(frozenset({1, 2}), learners=frozenset({3})))
    assert office.pass_time(30_000, {3: 5}) == []


def test_a_member_with_an_ill_disk_leaves_the_choice_to_that_rule() -> None:
    office = Office()
    assert office.pass_time(30_000, SECOND, is_well=False) == []


def test_pauses_after_failed_attempts_double() -> None:
    """The target never takes over: proposals stop during each attempt, so attempts become rare."""
    office = Office()
    begun = [begun_ms for begun_ms, _ in office.pass_time(400_000, SECOND)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(begun)]
    assert len(pauses) >= 4
    for number, pause_ms in enumerate(pauses):
        expected_ms = min(PAUSE_MS_MIN * 2**number, PAUSE_MS_MAX)
        assert expected_ms <= pause_ms <= expected_ms + TIMEOUT * 25 + 2 * LOOK_MS


def lose_office(office: Office) -> None:
    office.solo.step(office.solo.heartbeat(office.solo.raft.term + 1))
    assert office.preference.look(office.now_ms, SECOND, is_well=True) is None


def test_an_office_that_comes_back_soon_counts_as_failed_and_one_that_stayed_does_not() -> None:
    office = Office()
    office.pass_time(LED_MS + LOOK_MS, SECOND)
    lose_office(office)
    office.solo.lead()
    back_ms = office.now_ms
    ((begun_ms, _),) = office.pass_time(PAUSE_MS_MIN + 2 * LOOK_MS, SECOND)
    assert begun_ms - back_ms >= PAUSE_MS_MIN, "two that disagree on who is well must not play ball"
    lose_office(office)
    office.now_ms += STAYED_MS
    office.solo.lead()
    back_ms = office.now_ms
    begun = office.pass_time(LED_MS + 2 * LOOK_MS, SECOND)
    assert begun, "it stayed away for long: no pause"
    assert begun[0][0] - back_ms <= LED_MS + 2 * LOOK_MS
