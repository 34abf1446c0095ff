"""When leases are renewed, and what their owner may believe: planned from the end, counted from before the request."""

from raftkv.client.renewal import LEASES_PER_REQUEST, Plan, Renewal


class Owner:
    """A lease, and what its owner was told."""

    def __init__(self, plan: Plan, *, ttl_s: float = 10.0, sent_at: float = 0.0, draw: float = 0.5, lease: int = 7):
        self.told: list[str] = []
        self.renewal = Renewal(lease, ttl_s, sent_at, lambda: draw, self._on_change)
        plan.add(self.renewal)

    def _on_change(self) -> None:
        self.told.append("lost" if self.renewal.lost else "doubt" if self.renewal.in_doubt else "fine")


def test_a_renewal_is_planned_from_the_end_with_jitter() -> None:
    plan = Plan()
    times = [Owner(plan, draw=draw, lease=number).renewal.renew_at for number, draw in enumerate((0.0, 0.5, 0.999))]
    assert all(2.8 <= renew_at <= 3.8 for renew_at in times)
    assert len(set(times)) == 3


def test_a_lease_is_valid_from_before_the_request_that_renewed_it() -> None:
    plan = Plan()
    owner = Owner(plan)
    (due,) = plan.take_due(3.5)
    plan.on_answer([due], sent_at=3.5, now=4.9, ttls_ms=[10_000])
    assert owner.renewal.valid_until == 13.5
    assert not owner.told


def test_one_in_flight_is_not_sent_again() -> None:
    plan = Plan()
    Owner(plan)
    assert len(plan.take_due(4.0)) == 1
    assert plan.take_due(4.0) == []
    assert plan.next_at() == 5.0, "the doubt comes all the same"


def test_half_way_the_owner_is_told_and_at_the_end_it_is_over() -> None:
    plan = Plan()
    owner = Owner(plan)
    plan.look(4.99)
    assert owner.told == []
    plan.look(5.0)
    plan.look(9.99)
    assert owner.told == ["doubt"]
    plan.look(10.0)
    assert owner.told == ["doubt", "lost"]
    assert len(plan) == 0


def test_a_renewal_ends_the_doubt() -> None:
    plan = Plan()
    owner = Owner(plan)
    (due,) = plan.take_due(4.0)
    plan.look(6.0)
    plan.on_answer([due], sent_at=4.0, now=6.0, ttls_ms=[10_000])
    assert owner.told == ["doubt", "fine"]


def test_an_answer_after_the_end_comes_too_late() -> None:
    plan = Plan()
    owner = Owner(plan)
    (due,) = plan.take_due(9.0)
    plan.on_answer([due], sent_at=9.0, now=10.0, ttls_ms=[10_000])
    assert owner.told[-1] == "lost"
    assert owner.renewal.valid_until == 10.0


def test_no_such_lease_is_the_end_at_once() -> None:
    plan = Plan()
    owner = Owner(plan)
    (due,) = plan.take_due(4.0)
    plan.on_answer([due], sent_at=4.0, now=4.1, ttls_ms=[0])
    assert owner.told == ["lost"]
    assert len(plan) == 0


def test_a_failure_is_tried_again_soon_and_more_often_towards_the_end() -> None:
    plan = Plan()
    owner = Owner(plan)
    pauses = []
    for now in (4.0, 8.0, 9.9):
        (due,) = plan.take_due(now)
        plan.on_failure([due], now)
        pauses.append(owner.renewal.renew_at - now)
    assert pauses == sorted(pauses, reverse=True)
    assert 0.6 >= pauses[0] > pauses[-1] >= 0.05


def test_a_request_lasts_no_longer_than_until_somebody_has_to_be_told() -> None:
    plan = Plan()
    due = [Owner(plan, lease=1).renewal, Owner(plan, ttl_s=30.0, lease=2).renewal]
    assert plan.request_timeout_s(due, 4.0, 5.0) == 1.0
    assert plan.request_timeout_s(due, 6.0, 5.0) == 4.0
    assert plan.request_timeout_s(due[1:], 4.0, 5.0) == 5.0


def test_leases_share_requests_up_to_a_bound_and_the_most_urgent_go_first() -> None:
    plan = Plan()
    for number in range(LEASES_PER_REQUEST + 10):
        Owner(plan, lease=number, sent_at=number / 1e6, draw=number % 7 / 7)
    first, second = plan.take_due(4.0), plan.take_due(4.0)
    assert (len(first), len(second)) == (LEASES_PER_REQUEST, 10)
    assert {renewal.lease_id for renewal in second} == set(range(LEASES_PER_REQUEST, LEASES_PER_REQUEST + 10))


def test_what_is_due_soon_goes_along_but_nothing_goes_before_something_is_due() -> None:
    plan = Plan()
    early, late = Owner(plan, draw=0.9, lease=1), Owner(plan, draw=0.5, lease=2)
    assert plan.take_due(early.renewal.renew_at - 0.001) == []
    assert {renewal.lease_id for renewal in plan.take_due(early.renewal.renew_at)} == {1, 2}
    assert late.renewal.in_flight


def test_when_nobody_keeps_them_any_more_all_owners_are_told() -> None:
    plan = Plan()
    owners = [Owner(plan, lease=number) for number in range(3)]
    plan.lose_all()
    assert [owner.told for owner in owners] == [["lost"]] * 3
