"""Endpoints as users write them, and what a client knows about who is behind them."""

import pytest

from raftkv.client.endpoints import Directory, Handshake, Peer, parse_endpoints, peer_or_none, split_address
from raftkv.client.options import make_options
from raftkv.errors import ClusterMismatch, ConfigError

A, B, C = "a:1", "b:1", "c:1"
PEERS = (Peer(1, "n1", A), Peer(2, "n2", B), Peer(3, "n3", C))


def handshake(member_id: int, *, cluster_id: int = 7, leader: Peer | None = None) -> Handshake:
    return Handshake(member_id, f"n{member_id}", cluster_id, "prod", leader, PEERS, "0.1.0", 1, 1, 1, 600.0)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("a:1", ("a:1",)),
        ("a:1,b:2", ("a:1", "b:2")),
        (" a:1 , b:2, ", ("a:1", "b:2")),
        ("a", ("a:2379",)),
        ("[::1]", ("[::1]:2379",)),
        ("[::1]:5", ("[::1]:5",)),
        ("a:1,a:1", ("a:1",)),
        (["a:1", "b:2,c:3"], ("a:1", "b:2", "c:3")),
        ("https://a:1,https://b", ("a:1", "b:2379")),
        ("http://a:1", ("a:1",)),
    ],
)
def test_endpoints_as_written(text: str | list[str], addresses: tuple[str, ...]) -> None:
    assert parse_endpoints(text) == addresses


@pytest.mark.parametrize("text", ["", " , ", "a:", ":1", "a:x", "a:0", "a:70000", "ftp://a:1", "::1", "a b:1", "u@h:1"])
def test_endpoints_that_are_none_are_named(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_endpoints(text)
    assert repr(text.strip()) in raised.value.message or "no endpoint" in raised.value.message


def test_addresses_apart() -> None:
    assert split_address("a:1") == ("a", 1)
    assert split_address("[fe80::1]:2379") == ("fe80::1", 2379)


@pytest.mark.parametrize("name", ["timeout", "attempt_timeout", "connection_lifetime", "idle_check_after"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_options_out_of_bounds_are_named(name: str, value: float) -> None:
    good = {"timeout": 5.0, "attempt_timeout": None, "connection_lifetime": 600.0, "idle_check_after": 30.0}
    with pytest.raises(ConfigError, match=name):
        make_options(cluster_name=None, session=True, client_name="x", **{**good, name: value})  # type: ignore[arg-type]


def test_lifetimes_are_spread() -> None:
    options = make_options(
        cluster_name=None,
        timeout=5.0,
        attempt_timeout=None,
        session=True,
        connection_lifetime=600.0,
        idle_check_after=30.0,
        client_name="x",
    )
    assert [options.draw_lifetime_s(drawn) for drawn in (0.0, 0.5, 1.0)] == pytest.approx([540.0, 600.0, 660.0])


def test_members_off_the_wire() -> None:
    assert peer_or_none({"id": 1, "name": "n1", "address": A}) == PEERS[0]
    for odd in (
        None,
        5,
        {},
        {"id": 0, "name": "", "address": A},
        {"id": "1", "address": A},
        {"id": 1, "address": None},
    ):
        assert peer_or_none(odd) is None


def test_the_bad_ones_go_to_the_back_for_a_while_and_longer_each_time() -> None:
    directory = Directory([A, B])
    assert directory.candidates(0.0) == [A, B]
    directory.on_unreachable(A, 0.0)
    assert directory.candidates(0.5) == [B, A]
    assert directory.is_unreachable(A, 0.5)
    assert directory.candidates(1.5) == [A, B]
    directory.on_unreachable(A, 2.0)
    assert directory.candidates(3.5) == [B, A]
    for failure in range(10):
        directory.on_unreachable(A, 100.0 * failure)
    assert directory.candidates(909.9) == [B, A]
    assert directory.candidates(910.1) == [A, B], "ten seconds at most"
    directory.on_handshake(A, handshake(1))
    directory.on_unreachable(A, 1000.0)
    assert directory.candidates(1001.1)[:2] == [A, B], "one good greeting and all is forgiven"


def test_many_calls_of_one_lost_connection_count_once() -> None:
    directory = Directory([A, B])
    for _ in range(100):
        directory.on_unreachable(A, 0.0)
    assert not directory.is_unreachable(A, 1.1)


def test_a_refusal_is_not_an_absence() -> None:
    directory = Directory([A, B])
    directory.on_refusal(A, 0.0)
    assert directory.candidates(0.5) == [B, A]
    assert not directory.is_unreachable(A, 0.5), "it can be asked to forward, or lead again"


def test_when_all_are_bad_the_least_bad_comes_first() -> None:
    directory = Directory([A, B, C])
    for address, at in ((A, 3.0), (B, 1.0), (C, 2.0)):
        directory.on_refusal(address, at)
    assert directory.candidates(1.9) == [B, C, A]


def test_members_that_the_list_does_not_name_come_after_those_it_does() -> None:
    directory = Directory([B])
    directory.on_handshake(B, handshake(2, leader=PEERS[0]))
    assert directory.candidates(0.0) == [B, A, C]
    assert directory.leader_id == 1


def test_an_endpoint_that_greeted_stands_for_the_advertised_address() -> None:
    directory = Directory(["localhost:7"])
    directory.on_handshake("localhost:7", handshake(2))
    assert directory.addresses_of(2) == ["localhost:7", B]
    assert directory.candidates(0.0) == ["localhost:7", A, C], "the same member is not tried twice"


def test_a_leader_that_fails_is_no_longer_believed_to_lead() -> None:
    for report in (Directory.on_unreachable, Directory.on_refusal):
        directory = Directory([A, B])
        directory.on_handshake(A, handshake(1, leader=PEERS[0]))
        report(directory, B, 0.0)
        assert directory.leader_id == 1
        report(directory, A, 0.0)
        assert directory.leader_id == 0


def test_one_client_talks_to_one_cluster() -> None:
    directory = Directory([A, B])
    directory.on_handshake(A, handshake(1, cluster_id=0))  # not founded yet
    directory.on_handshake(A, handshake(1, cluster_id=7))
    with pytest.raises(ClusterMismatch, match=r"b:1 belongs to cluster 'prod' \(8\).*'prod' \(7\)"):
        directory.on_handshake(B, handshake(2, cluster_id=8))
    assert directory.member_at(B) == 0
