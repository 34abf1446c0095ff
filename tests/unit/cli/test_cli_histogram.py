"""The histogram against a sorted list, and its promise of one part in 64."""

import random

import pytest

from raftkv_cli.histogram import Histogram, bucket_end_us, bucket_of


def test_buckets_are_in_order_without_gaps_and_narrow() -> None:
    last_bucket = -1
    for duration_us in range(200_000):
        bucket = bucket_of(duration_us)
        assert bucket in (last_bucket, last_bucket + 1)
        assert duration_us <= bucket_end_us(bucket) <= duration_us + duration_us // 64
        last_bucket = bucket
    assert bucket_of(bucket_end_us(10_000)) == 10_000
    assert bucket_of(bucket_end_us(10_000) + 1) == 10_001


@pytest.mark.parametrize("percent", [1.0, 50.0, 90.0, 99.0, 99.9, 100.0])
def test_percentiles_are_those_of_a_sorted_list(percent: float) -> None:
    draw = random.Random(7)
    durations = sorted(int(draw.lognormvariate(7, 2)) for _ in range(5_000))
    histogram = Histogram()
    for duration_us in durations:
        histogram.record(duration_us)
    exact = durations[max(1, -(-len(durations) * percent // 100)).__int__() - 1]
    assert exact <= histogram.percentile_us(percent) <= exact + exact // 64
    assert histogram.max_us == durations[-1]


def test_merging_is_the_same_as_recording_all_in_one() -> None:
    both, left, right = Histogram(), Histogram(), Histogram()
    for number in range(1_000):
        both.record(number * 13)
        (left if number % 3 else right).record(number * 13)
    left.merge(Histogram.from_data(right.as_data()))
    assert left.as_data() == both.as_data()
    assert left.total == both.total == 1_000
    assert left.summary_us() == both.summary_us()


def test_an_empty_histogram_reports_zeros() -> None:
    assert Histogram().summary_us() == {"p50": 0, "p90": 0, "p99": 0, "p99.9": 0, "max": 0}
