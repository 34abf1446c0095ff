"""Who a member is survives restarts, and a peer with another disk is not the same member."""

from pathlib import Path

import pytest

from raftkv.daemon.membership import Incarnations, Membership, load_membership, node_id_of, save_membership
from raftkv.errors import Corruption

CLUSTER = {"n1": "a:2380", "n2": "b:2380"}


def test_founders_agree_on_ids_without_talking() -> None:
    first, second = Membership.found("prod", "n1", CLUSTER), Membership.found("prod", "n2", CLUSTER)
    assert first.peers() == second.peers()
    assert first.incarnation != second.incarnation
    assert first.node_id in first.peers()
    assert node_id_of("prod", "n1") != node_id_of("dev", "n1")
    assert 0 < first.node_id < 2**63


def test_a_membership_survives(tmp_path: Path) -> None:
    assert load_membership(tmp_path) is None
    membership = Membership.found("prod", "n1", CLUSTER)
    save_membership(tmp_path, membership)
    assert load_membership(tmp_path) == membership
    assert [path.name for path in tmp_path.iterdir()] == ["member.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "n1"}', "\x00\x01"])
def test_a_membership_that_cannot_be_read_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "member.json").write_text(content)
    with pytest.raises(Corruption, match="add it anew"):
        load_membership(tmp_path)


def test_the_first_incarnation_seen_is_the_one_that_counts(tmp_path: Path) -> None:
    assert Incarnations(tmp_path).check(5, "n5", 111) is None
    again = Incarnations(tmp_path)
    assert again.check(5, "n5", 111) is None
    refusal = again.check(5, "n5", 222)
    assert refusal is not None
    assert "n5" in refusal
    assert "its disk was replaced" in refusal


def test_a_damaged_list_of_incarnations_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "peers.json").write_text("{]")
    with pytest.raises(Corruption):
        Incarnations(tmp_path)
