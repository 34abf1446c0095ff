"""A store that is over its quota: refused, readable, and well again by deleting and compacting alone."""

import pytest

import raftkv
from raftkv.errors import NoSpace

from .conftest import StartCluster
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
QUOTA = {"RAFTKV_LIMITS_QUOTA_BYTES": str(8 * MIB), "RAFTKV_LIMITS_COMMIT_INTERVAL_MS": "50"}


def fill(kv: raftkv.Client, value: bytes) -> None:
    """Fifty keys again and again: most of it is history."""
    for number in range(1_000):
        kv.put(f"k{number % 50}", value)


def test_the_quota_refuses_and_deleting_and_compacting_make_room(make_cluster: StartCluster) -> None:
    cluster = make_cluster(environment=QUOTA).start()
    value = b"v" * 64 * 1024
    with raftkv.Client(cluster.endpoints, timeout=10) as kv:
        with pytest.raises(NoSpace, match="over its quota on"):
            fill(kv, value)
        assert kv.get("k0") == value
        # The refusal is the leader's, and the others apply it a little later.
        wait_until(lambda: cluster.nodes[0].http_get("/health")[0] == 503, "the first member to hear of it")
        assert "ALARM NOSPACE" in cluster.nodes[0].http_get("/health")[1]
        assert any("over the quota" in error for row in kv.status() for error in row["errors"])
        for node in cluster.nodes:  # members that lag hear of it later
            wait_until(lambda: "the store is over its quota on " in node.daemon.log_text(), "a line in its log")  # noqa: B023 - used at once
        with pytest.raises(NoSpace):
            kv.increment("counter")
        for number in range(50):
            kv.delete(f"k{number}")
        revision = kv.range("k0").revision
        kv.compact(revision)

        def writes_again() -> bool:
            try:
                kv.put("after", "it")
            except NoSpace:
                return False
            return True

        wait_until(writes_again, "the alarm to end by itself", deadline_s=30, seen=lambda: kv.status()[0]["errors"])
        wait_until(lambda: cluster.nodes[0].http_get("/health")[0] == 200, "health", deadline_s=10)
        for node in cluster.nodes:
            wait_until(lambda: "within its quota again" in node.daemon.log_text(), "a line in its log")  # noqa: B023 - used at once
    cluster.wait_applied_equal()
