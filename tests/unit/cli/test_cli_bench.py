"""The arithmetic of the bench, and its way of listening to its processes; real load is put on in tests/integration."""

import json
from typing import Any

import pytest

from raftkv_cli.bench_plan import key_of, plan_from_data, shares
from raftkv_cli.commands.bench import Worker, make_plans, summary
from raftkv_cli.histogram import Histogram
from raftkv_cli.settings import Settings
from raftkv_cli.spec import Call, Failed

from .conftest import RunCli


def call(kind: str, **options: Any) -> Call:
    settings = Settings(("a:1", "b:2"), "prod", 2.5)
    return Call(
        {"KIND": kind}, {f"--{name.replace('_', '-')}": value for name, value in options.items()}, "value", settings
    )


def test_shares_add_up() -> None:
    assert shares(10, 3) == [4, 3, 3]
    assert shares(3, 3) == [1, 1, 1]
    assert sum(shares(100_000, 7)) == 100_000


def test_plans_reach_the_processes_unchanged() -> None:
    plans = make_plans(call("get", in_flight=5, processes=2, seconds=1.5, value_bytes=0, keys=7))
    assert [plan.in_flight for plan in plans] == [3, 2]
    assert [(plan.worker, plan.workers) for plan in plans] == [(0, 2), (1, 2)]
    assert all(plan.endpoints == "a:1,b:2" and plan.cluster_name == "prod" for plan in plans)
    assert all(plan_from_data(json.loads(json.dumps(plan._asdict()))) == plan for plan in plans)


def test_keys_have_one_length() -> None:
    assert len({len(key_of(number)) for number in (0, 7, 10**9)}) == 1


def final(durations_us: list[int], errors: dict[str, int], seconds: float) -> dict[str, Any]:
    histogram = Histogram()
    for duration_us in durations_us:
        histogram.record(duration_us)
    return json.loads(json.dumps({"histogram": histogram.as_data(), "errors": errors, "seconds": seconds}))


def test_processes_are_added_up() -> None:
    plans = make_plans(call("put", in_flight=4, processes=2))
    result = summary(
        plans, [final([10] * 98, {"no_quorum": 1}, 2.0), final([60, 63], {"no_quorum": 2, "overloaded": 1}, 1.0)]
    )
    assert result["operations"] == 100
    assert result["ops_per_second"] == 50.0
    assert result["in_flight"] == 4
    assert result["latency_us"] == {"p50": 10, "p90": 10, "p99": 60, "p99.9": 63, "max": 63}
    assert result["errors"] == {"no_quorum": 3, "overloaded": 1}


def test_a_process_that_ends_without_a_word_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = make_plans(call("put", in_flight=1))
    monkeypatch.setattr("raftkv_cli.commands.bench.sys.executable", "/bin/false")
    worker = Worker(plan)
    try:
        with pytest.raises(Failed, match="ended with exit code 1: it said nothing"):
            worker.read()
    finally:
        worker.end()


def test_nobody_there_is_unreachable_and_surely_not_done(cli: RunCli) -> None:
    result = cli("bench", "put", "--endpoints", "127.0.0.1:1", "--timeout", "0.3", "--seconds", "0.1")
    assert (result.code, result.stdout) == (4, b"")
    assert len(result.stderr.splitlines()) == 1
    assert "unreachable" in result.stderr
