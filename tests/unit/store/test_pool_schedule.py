"""Who gets what, case by case: the order, the head, what may pass it and what may not, and why each one waits."""

from typing import Any

import pytest

from raftkv.store.pool_model import HOUR_MS, Pool, Request, eligible_ms, weight_milli
from raftkv.store.pool_schedule import (
    BEHIND,
    BELOW_THRESHOLD,
    FITS,
    HEAD,
    OVER_QUOTA,
    TOO_LARGE,
    decide,
    next_deadline_ms,
)


def request(name: str, demand: dict[str, Any], order: int = 0, **fields: Any) -> Request:
    """`demand` of one pool may be given as {"gpu": 2}."""
    if demand and not isinstance(next(iter(demand.values())), dict):
        demand = {"p": demand}
    made = Request(name, 7, demand, "", "", 0, 0, 0, 0, 0, order)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def running(name: str, demand: dict[str, Any], **fields: Any) -> Request:
    return request(name, demand, token=5, **fields)


def granted(pools: dict[str, Pool], *requests: Request, now_ms: int = 0) -> list[str]:
    with_reasons = [one.id for one in decide(pools, requests, now_ms).granted]
    assert [one.id for one in decide(pools, requests, now_ms, explain=False).granted] == with_reasons
    return with_reasons


def kinds(pools: dict[str, Pool], *requests: Request, now_ms: int = 0) -> dict[str, str]:
    return {name: reason.kind for name, reason in decide(pools, requests, now_ms).reasons.items()}


GPU8 = {"p": Pool({"gpu": 8, "mem": 100})}


def test_by_weight_then_by_age() -> None:
    three = [request("a", {"gpu": 8}, 1), request("b", {"gpu": 8}, 2, weight=5), request("c", {"gpu": 8}, 3, weight=5)]
    assert granted(GPU8, *three) == ["b"]
    assert granted(GPU8, three[0], three[2]) == ["c"]
    assert granted(GPU8, request("late", {"gpu": 8}, 9), request("early", {"gpu": 8}, 1)) == ["early"]


def test_weight_is_made_of_class_age_and_staleness() -> None:
    pools = {"p": Pool({"gpu": 1}, age_weight=10, staleness_weight=1, classes={"urgent": 100})}
    one = request("a", {"gpu": 1}, weight=2, klass="urgent", staleness_ms=5 * HOUR_MS, submitted_ms=1000)
    assert weight_milli(one, pools, 1000) == (2 + 100 + 5) * 1000
    assert weight_milli(one, pools, 1000 + HOUR_MS // 2) == (2 + 100 + 5) * 1000 + 5_500


def test_age_brings_up_what_came_long_ago() -> None:
    pools = {"p": Pool({"gpu": 1}, age_weight=10)}
    old, heavy = request("old", {"gpu": 1}), request("heavy", {"gpu": 1}, 9, weight=15, submitted_ms=2 * HOUR_MS)
    assert granted(pools, old, heavy, now_ms=2 * HOUR_MS) == ["old"]
    assert granted(pools, old, request("now", {"gpu": 1}, weight=25), now_ms=2 * HOUR_MS) == ["now"]


def test_the_head_stays_at_the_head() -> None:
    holder, wide = running("holder", {"gpu": 1}), request("wide", {"gpu": 8}, 1)
    small = request("small", {"gpu": 1}, 2)
    assert granted(GPU8, holder, wide, small) == []
    assert kinds(GPU8, holder, wide, small) == {"wide": HEAD, "small": BEHIND}
    reason = decide(GPU8, [holder, wide, small], 0).reasons
    assert reason["wide"].details == {"pool": "p", "resource": "gpu", "wants": 8, "free": 7}
    assert reason["small"].details["head"] == "wide"


def test_everything_that_fits_is_granted_in_one_decision() -> None:
    many = [request(f"r{n}", {"gpu": 3, "mem": 10}, n) for n in range(4)]
    assert granted(GPU8, *many) == ["r0", "r1"]


TWO = {"a": Pool({"x": 2}), "b": Pool({"x": 2})}


def test_all_or_nothing_over_several_pools() -> None:
    both = request("both", {"a": {"x": 1}, "b": {"x": 2}}, 1)
    assert granted(TWO, running("h", {"b": {"x": 1}}), both) == []
    assert granted(TWO, both) == ["both"]


def test_opposite_orders_do_not_deadlock() -> None:
    first = request("first", {"a": {"x": 2}, "b": {"x": 2}}, 1)
    second = request("second", {"b": {"x": 2}, "a": {"x": 2}}, 2)
    assert granted(TWO, first, second) == ["first"]


def test_who_waits_for_two_pools_holds_its_place_in_both() -> None:
    holder, both = running("h", {"b": {"x": 1}}), request("both", {"a": {"x": 1}, "b": {"x": 2}}, 1)
    other = request("other", {"a": {"x": 2}}, 2)
    assert kinds(TWO, holder, both, other) == {"both": HEAD, "other": BEHIND}
    elsewhere = {**TWO, "c": Pool({"x": 1})}
    assert granted(elsewhere, holder, both, request("free", {"c": {"x": 1}}, 3)) == ["free"]


def test_who_is_below_the_threshold_waits_and_holds_nobody_up() -> None:
    pools = {"p": Pool({"gpu": 8}, threshold=10, age_weight=5)}
    young, ripe = request("young", {"gpu": 8}, 1), request("ripe", {"gpu": 1}, 2, weight=10)
    assert granted(pools, young, ripe) == ["ripe"]
    assert kinds(pools, young)["young"] == BELOW_THRESHOLD
    assert eligible_ms(young, pools) == 2 * HOUR_MS
    assert next_deadline_ms(pools, [young], 0) == 2 * HOUR_MS
    assert granted(pools, young, now_ms=2 * HOUR_MS - 1) == []
    assert granted(pools, young, now_ms=2 * HOUR_MS) == ["young"]
    never = {"p": Pool({"gpu": 8}, threshold=10)}
    assert eligible_ms(young, never) is None
    assert next_deadline_ms(never, [young], 0) is None


@pytest.mark.parametrize("staleness_ms", [0, 1, 999, HOUR_MS + 17])
@pytest.mark.parametrize(("age", "stale"), [(0, 1), (7, 0), (3, 11), (999_983, 2)])
def test_the_moment_is_exact(age: int, stale: int, staleness_ms: int) -> None:
    pools = {"p": Pool({"gpu": 8}, threshold=29, age_weight=age, staleness_weight=stale)}
    one = request("a", {"gpu": 1}, weight=3, staleness_ms=staleness_ms, submitted_ms=12_345)
    when_ms = eligible_ms(one, pools)
    assert when_ms is not None
    assert weight_milli(one, pools, when_ms) >= 29_000
    assert weight_milli(one, pools, when_ms - 1) < 29_000 or when_ms == one.submitted_ms


def test_quotas_are_per_tenant_and_hold_nobody_up() -> None:
    pools = {"p": Pool({"gpu": 8}, quotas={"ann": {"gpu": 2}, "*": {"gpu": 4}})}
    mine = running("mine", {"gpu": 2}, tenant="ann")
    more, other = request("more", {"gpu": 1}, 1, tenant="ann"), request("other", {"gpu": 4}, 2, tenant="bob")
    assert granted(pools, mine, more, other) == ["other"]
    assert kinds(pools, mine, more)["more"] == OVER_QUOTA
    third = request("third", {"gpu": 1}, 3, tenant="bob")
    assert granted(pools, other, third) == ["other"], "what was granted a moment ago counts"


def test_what_a_smaller_pool_cannot_hold_holds_nobody_up() -> None:
    pools = {"p": Pool({"gpu": 4})}
    assert granted(pools, request("wide", {"gpu": 8}, 1), request("small", {"gpu": 4}, 2)) == ["small"]
    assert kinds(pools, request("wide", {"gpu": 8}))["wide"] == TOO_LARGE


def test_a_pool_that_shrank_under_its_holders_gives_nothing_and_owes_nothing() -> None:
    pools = {"p": Pool({"gpu": 4})}
    holders = [running("h1", {"gpu": 4}), running("h2", {"gpu": 4})]
    assert granted(pools, *holders, request("next", {"gpu": 1}, 1)) == []
    assert decide(pools, [*holders, request("next", {"gpu": 1}, 1)], 0).reasons["next"].details["free"] == 0
    assert granted(pools, holders[0], request("next", {"gpu": 1}, 1)) == []
    assert granted(pools, request("next", {"gpu": 1}, 1)) == ["next"]


def backfilling(grace_ms: int = 0) -> dict[str, Pool]:
    return {"p": Pool({"gpu": 8, "mem": 100}, backfill=True, grace_ms=grace_ms)}


def test_backfill_takes_what_is_over_before_the_head_could_start() -> None:
    holder = running("holder", {"gpu": 6}, granted_ms=0, max_run_ms=1_000)
    wide = request("wide", {"gpu": 8}, 1)
    short, long = request("short", {"gpu": 2}, 2, max_run_ms=900), request("long", {"gpu": 2}, 3, max_run_ms=901)
    assert granted(backfilling(), holder, wide, short, now_ms=100) == ["short"]
    assert granted(backfilling(), holder, wide, long, now_ms=100) == []
    assert granted(backfilling(), holder, wide, request("open", {"gpu": 2}, 2), now_ms=100) == [], "no end is known"
    assert granted(GPU8, holder, wide, short, now_ms=100) == [], "only where it is switched on"
    assert granted(backfilling(50), holder, wide, short, now_ms=100) == ["short"], "both end a grace later"


def test_backfill_takes_what_the_head_does_not_want() -> None:
    holder, wide = running("holder", {"gpu": 8}), request("wide", {"gpu": 8, "mem": 60}, 1)
    assert granted(backfilling(), holder, wide, request("m", {"mem": 40}, 2)) == ["m"]
    assert granted(backfilling(), holder, wide, request("m", {"mem": 41}, 2)) == []
    second = request("second", {"gpu": 1, "mem": 30}, 2)
    third = request("third", {"mem": 20}, 3)
    assert granted(backfilling(), holder, wide, second, third) == [], "together with both who are ahead it is too much"
    assert granted(backfilling(), holder, wide, second, request("third", {"mem": 10}, 3)) == ["third"]


def test_an_end_that_nobody_knows_is_waited_for() -> None:
    holder, wide = running("holder", {"gpu": 6}), request("wide", {"gpu": 8}, 1)
    short = request("short", {"gpu": 2}, 2, max_run_ms=10)
    assert granted(backfilling(), holder, wide, short) == ["short"], "nothing starts before it is over"
    noticed = running("holder", {"gpu": 6}, max_run_ms=100, notice_ms=100, ends_ms=105)
    assert granted(backfilling(), noticed, wide, short, now_ms=100) == [], "its end is near"


def test_deadlines() -> None:
    pools = {"p": Pool({"gpu": 8}, grace_ms=50)}
    waits = request("w", {"gpu": 9}, submitted_ms=10, max_wait_ms=500)
    runs = running("r", {"gpu": 1}, granted_ms=20, max_run_ms=300)
    ending = running("e", {"gpu": 1}, granted_ms=20, max_run_ms=100, notice_ms=120, ends_ms=170)
    assert next_deadline_ms(pools, [waits], 10) == 510
    assert next_deadline_ms(pools, [waits, runs], 20) == 320
    assert next_deadline_ms(pools, [waits, runs, ending], 130) == 170
    assert next_deadline_ms(pools, [running("r", {"gpu": 1})], 0) is None
    assert decide(pools, [request("w", {"gpu": 1})], 0).reasons["w"].kind == FITS
