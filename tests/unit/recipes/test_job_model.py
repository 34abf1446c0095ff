"""A job's states: which follows which, what an attempt costs, and what a document is."""

import pytest

from raftkv.client.results import KeyValue
from raftkv.errors import InvalidRequest, JobState
from raftkv.recipes.job_model import (
    CANCELLED,
    ENDED,
    FAILED,
    QUEUED,
    RUNNING,
    STATES,
    SUCCEEDED,
    TIMED_OUT,
    Job,
    claims_of,
    id_of_queue_name,
    is_filtered,
    new_job,
    queue_name,
    unpack_job,
)


def job(**changes: object) -> Job:
    fields: dict[str, object] = {"priority": 0, "attempts": 2, "run_limit": 0.0, "workers": 1, "labels": None}
    fields.update(changes)
    return new_job("a", "text", **fields)  # type: ignore[arg-type]


def test_the_way_of_a_job() -> None:
    queued = job().moved(QUEUED, "me")
    running = queued.begun(["w1"], "w1")
    assert (running.state, running.attempt, running.owners) == (RUNNING, 1, ["w1"])
    again = running.given_up("other", "its worker died")
    assert (again.state, again.attempt, again.owners, again.error) == (QUEUED, 1, [], "its worker died")
    last = again.begun(["w2"], "w2").given_up("other", "its worker died")
    assert (last.state, last.dead, last.attempt) == (FAILED, True, 2)
    assert last.error == "its worker died (attempt 2 of 2)"
    assert [line["state"] for line in last.history] == [QUEUED, RUNNING, QUEUED, RUNNING, FAILED]
    assert [line["attempt"] for line in last.history] == [0, 1, 1, 2, 2]


def test_giving_back_costs_no_attempt() -> None:
    running = job().moved(QUEUED, "me").begun(["w"], "w")
    back = running.given_up("w", "given back", counts=False)
    assert (back.state, back.attempt, back.error) == (QUEUED, 0, "")


@pytest.mark.parametrize("state", sorted(ENDED))
@pytest.mark.parametrize("wanted", STATES)
def test_nothing_follows_the_end(state: str, wanted: str) -> None:
    ended = Job("a", "", state=state)
    with pytest.raises(JobState):
        ended.moved(wanted, "me")


@pytest.mark.parametrize(
    ("state", "wanted"), [("submitted", RUNNING), (QUEUED, SUCCEEDED), (QUEUED, TIMED_OUT), (RUNNING, RUNNING)]
)
def test_no_step_is_skipped(state: str, wanted: str) -> None:
    with pytest.raises(JobState):
        Job("a", "", state=state).moved(wanted, "me")
    assert Job("a", "", state=state).moved(CANCELLED, "me").has_ended


@pytest.mark.parametrize(
    "bad",
    [{"attempts": 0}, {"workers": 0}, {"run_limit": -1.0}, {"run_limit": float("nan")}, {"priority": 10**10}],
    ids=str,
)
def test_bad_jobs(bad: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        job(**bad)
    with pytest.raises(InvalidRequest):
        new_job("a/b", "", priority=0, attempts=1, run_limit=0, workers=1, labels=None)


def test_a_document_comes_back_as_it_was() -> None:
    one = job(labels={"team": "ä"}, run_limit=1.5).moved(QUEUED, "me", "why")
    back = unpack_job(KeyValue(b"k", 1, 7, 1, 0, one.pack()))
    assert back.revision == 7
    assert back.pack() == one.pack()
    assert back.is_same(one)
    assert not back.is_same(job(workers=2))


def test_the_order_of_the_queue() -> None:
    names = [queue_name(Job(name, "", priority=p, order=o)) for name, p, o in (("c", 0, 2), ("a", 0, 10), ("b", 7, 30))]
    assert [id_of_queue_name(name) for name in sorted(names)] == ["b", "c", "a"]


def test_claims_by_job_and_age() -> None:
    def claim(name: bytes, created: int) -> KeyValue:
        return KeyValue(b"j/c/" + name, created, created, 1, 1, b"")

    found = claims_of([claim(b"a/2", 9), claim(b"b/1", 4), claim(b"a/1", 3)], b"j/c/")
    assert {name: [kv.create_revision for kv in row] for name, row in found.items()} == {"a": [3, 9], "b": [4]}


def test_filters() -> None:
    one = job(labels={"team": "x", "kind": "y"})
    assert not is_filtered(one, None, None)
    assert not is_filtered(one, "submitted", {"team": "x"})
    assert is_filtered(one, QUEUED, None)
    assert is_filtered(one, None, {"team": "z"})
