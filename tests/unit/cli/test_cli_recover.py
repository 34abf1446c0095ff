"""`raftkv recover` before it does anything: a cluster that lives is left alone, also where its leader cannot be asked how it is."""

from types import SimpleNamespace
from typing import Any

import pytest

from raftkv.errors import Unreachable, UserEmpty
from raftkv_cli.commands import recover
from raftkv_cli.spec import Failed

FOLLOWER = {"role": "follower", "name": "n3", "endpoint": "b:1", "errors": []}
SLOW_LEADER = {"role": "unreachable", "name": "n2", "endpoint": "a:1", "errors": ["no answer in time"]}
CANDIDATE = {"role": "candidate", "name": "n2", "endpoint": "a:1", "errors": []}
ILL_LEADER = {"role": "leader", "name": "n2", "endpoint": "a:1", "errors": ["no_space: over the quota"]}


class Cluster:
    """A client of a cluster whose members say `rows` of themselves and answer a read with `answer`."""

    def __init__(self, rows: list[dict[str, Any]], answer: Exception | None) -> None:
        self.rows, self.answer = rows, answer

    def __call__(self, endpoints: str, **options: Any) -> "Cluster":
        return self

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def status(self) -> list[dict[str, Any]]:
        return self.rows

    def get(self, key: bytes) -> None:
        if self.answer is not None:
            raise self.answer


def look(monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]], answer: Exception | None) -> None:
    monkeypatch.setattr(recover, "Client", Cluster(rows, answer))
    survivor: Any = SimpleNamespace(
        members=[("n2", "a:1"), ("n3", "b:1")], membership=SimpleNamespace(cluster_name="c")
    )
    recover.refuse_if_it_lives(survivor, None)


@pytest.mark.parametrize("second", [SLOW_LEADER, CANDIDATE], ids=["a leader that stands still", "an election"])
def test_a_read_that_a_quorum_confirms_is_a_sign_of_life(
    monkeypatch: pytest.MonkeyPatch, second: dict[str, Any]
) -> None:
    with pytest.raises(Failed, match="the cluster lives: a majority"):
        look(monkeypatch, [FOLLOWER, second], None)


def test_a_leader_that_is_ill_leads_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="n2 at a:1 leads it"):
        look(monkeypatch, [FOLLOWER, ILL_LEADER], Unreachable("no answer in time"))


def test_a_cluster_that_wants_to_know_who_asks_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failed, match="--user"):
        look(monkeypatch, [SLOW_LEADER], UserEmpty())


def test_one_whose_quorum_is_lost_may_be_recovered(monkeypatch: pytest.MonkeyPatch) -> None:
    look(monkeypatch, [FOLLOWER, SLOW_LEADER], Unreachable("no member could be reached"))
