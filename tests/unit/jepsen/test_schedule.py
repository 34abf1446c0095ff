"""The nemesis without a cluster: victims are nobody's twice, everything is healed in the opposite order, and what breaks is said."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Iterator

import pytest

from raftkv_jepsen.checkers.verdict import INVALID, VALID
from raftkv_jepsen.history import HistoryWriter
from raftkv_jepsen.nemesis import arena as arena_module
from raftkv_jepsen.nemesis import processes
from raftkv_jepsen.nemesis.arena import Arena, FaultUnavailable, Injection, Kind, Occupied
from raftkv_jepsen.nemesis.schedule import Schedule
from raftkv_jepsen.recorder import Recorder


class FakeDaemon:
    exit_code = 9

    def log_text(self) -> str:
        return "first\nlast words\n"


class FakeNode:
    """Runs when it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.running = True
        self.paused = False
        self.process = self.daemon = FakeDaemon()

    def start(self) -> None:
        self.running = True

    def kill(self) -> None:
        self.running = False

    def is_ready(self) -> bool:
        return self.running

    def http_get(self, path: str) -> tuple[int, str]:
        return (200, "ok") if self.running else (0, "gone")


class FakeCluster:
    def __init__(self) -> None:
        self.nodes = [FakeNode(f"n{number}") for number in (1, 2, 3)]

    def current_leader(self, among: Any = None) -> FakeNode | None:
        return self.nodes[0] if among is None or self.nodes[0] in among else None


class Writes:
    """Acknowledged whenever somebody asks; or never."""

    def __init__(self) -> None:
        self.count = 0
        self.go_on = True

    def __call__(self) -> int:
        self.count += 10 * self.go_on
        return self.count


@pytest.fixture
def history(tmp_path: Path) -> Iterator[HistoryWriter]:
    history = HistoryWriter(tmp_path / "history.jsonl")
    yield history
    history.close()


def staged(tmp_path: Path, seed: int) -> Arena:
    network: Any = SimpleNamespace()
    cluster: Any = FakeCluster()
    return Arena(cluster, network, random.Random(seed), Writes(), lambda words: None, tmp_path)


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return staged(tmp_path, 1)


def scheduled(arena: Arena, history: HistoryWriter, *kinds: Kind) -> Schedule:
    return Schedule(arena, kinds, Recorder(history), recovery_s=0.3)


def test_faults_have_different_victims(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "KEEP_QUORUM", 0.0)
    assert len({arena.take_any().name for _ in range(3)}) == 3
    with pytest.raises(Occupied):
        arena.take_any()
    arena.busy.clear()
    arena.take_network()
    with pytest.raises(Occupied):
        arena.take_network()
    arena.take_follower()
    with pytest.raises(Occupied):
        arena.take_all()


def test_a_majority_is_left_when_that_is_wanted(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "KEEP_QUORUM", 1.0)
    arena.take_any()
    with pytest.raises(Occupied):
        arena.take_any()


def test_a_kill_is_expected_and_a_crash_is_not(arena: Arena) -> None:
    arena.kill(arena.nodes[0])
    arena.nodes[1].kill()
    arena.look_for_crashes()
    assert arena.crashes == ["n2 ended with exit code 9: last words"]
    assert [node.running for node in arena.nodes] == [False, True, True]
    arena.start(arena.nodes[0])
    assert not arena.down


def test_what_was_injected_is_healed_in_the_opposite_order(arena: Arena, history: HistoryWriter) -> None:
    healed: list[str] = []

    def kind(name: str) -> Kind:
        return Kind(name, "fake", lambda arena: Injection("", lambda: healed.append(name)))

    schedule = scheduled(arena, history, kind("a"), kind("b"))
    schedule._inject_some(2)
    order = [on[0].name for on in schedule._on]
    schedule.heal()
    assert healed == order[::-1]
    assert sorted(order) == ["a", "b"], "each once before any comes again"
    schedule.wait_healthy()
    assert schedule.recovery.word == VALID


def test_one_that_needs_the_rest_whole_comes_alone(arena: Arena, history: HistoryWriter) -> None:
    lonely = Kind("lonely", "fake", lambda arena: Injection("", lambda: None), alone=True)
    other = Kind("other", "fake", lambda arena: Injection("", lambda: None))
    schedule = scheduled(arena, history, lonely, other)
    for _ in range(4):
        schedule._inject_some(3)
        names = [on[0].name for on in schedule._on]
        assert names == ["lonely"] or "lonely" not in names
        schedule.heal()


def test_what_this_machine_cannot_is_skipped_with_the_reason(arena: Arena, history: HistoryWriter) -> None:
    def cannot(arena: Arena) -> Injection:
        raise FaultUnavailable("no such tool")

    known = Kind("known", "fake", cannot, lambda arena: "it is Tuesday")
    found_out = Kind("found out", "fake", cannot)
    schedule = scheduled(arena, history, known, found_out)
    schedule._inject_some(1)
    assert schedule.skipped == {"known": "it is Tuesday", "found out": "no such tool"}
    arena.is_raftkv = False
    own = Kind("own", "fake", cannot, own=True)
    assert "raftkv's own" in scheduled(arena, history, own).skipped["own"]


@pytest.mark.parametrize("broken", ["heal", "inject", "health"])
def test_a_cluster_that_does_not_come_back_is_accused(arena: Arena, history: HistoryWriter, broken: str) -> None:
    def fail() -> None:
        raise AssertionError("it does not come back")

    def inject(arena: Arena) -> Injection:
        if broken == "inject":
            fail()
        return Injection("", fail if broken == "heal" else lambda: None)

    schedule = scheduled(arena, history, Kind("stubborn", "fake", inject))
    if broken == "health":
        writes: Any = arena.writes_ok
        writes.go_on = False
    schedule._inject_some(1)
    schedule.heal()
    schedule.wait_healthy()
    assert schedule.recovery.word == INVALID


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ("raftkv_snapshot_received_bytes_total 4096\n", ("sent", "received")),
        ("raftkv_snapshot_received_bytes_total 0\n", ("might have sent", "might have received")),
    ],
)
def test_who_sends_or_receives_a_snapshot_is_killed_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metrics: str, words: tuple[str, str]
) -> None:
    monkeypatch.setattr(processes, "SNAPSHOT_S", 0.05)
    monkeypatch.setattr(processes, "WRITES_AWAY", 1)
    monkeypatch.setattr(FakeNode, "http_get", lambda self, path: (200, metrics if path == "/metrics" else "ok"))
    seen = set()
    for seed in range(12):
        arena = staged(tmp_path, seed)
        injection = processes.kill_in_snapshot(arena)
        (victim,) = [node for node in arena.nodes if not node.running]
        assert injection.detail.startswith(f"{victim.name} while it ")
        is_sender = victim is arena.nodes[0]
        assert words[0 if is_sender else 1] in injection.detail
        seen.add(is_sender)
        injection.heal()
        assert all(node.running for node in arena.nodes)
    assert seen == {True, False}
