"""Identity, settings and member table."""

from typing import Any

import pytest

from raftkv.raft.membership import encode_configuration
from raftkv.raft.messages import ENTRY_CONFIGURATION, Configuration
from raftkv.store.memory_keyspace import MemoryKeyspace
from raftkv.store.store import Store
from raftkv.wire.commands import CREATE_CLUSTER, FORGET_MEMBER, PUBLISH_MEMBER, RECORD_MEMBER
from raftkv.wire.settings import Settings, settings_from, settings_of
from tests.unit.store.stores import LIMITS, Driver, put

CREATE = [CREATE_CLUSTER, 0, 77, "ml", [[1, "n1", "h1:2380"], [2, "n2", "h2:2380"]]]
VOTERS = encode_configuration(Configuration(frozenset({1, 2})))
PUBLISH = [PUBLISH_MEMBER, 0, 1, "n1", b"incarnation", "h1:2379", "h1:2380", "0.1.0"]


def driver() -> Driver:
    return Driver(MemoryKeyspace())


def test_a_cluster_is_created_once() -> None:
    store = driver()
    assert store.store.cluster_id == 0
    assert store.apply(CREATE) == [[0, 1]]
    assert store.apply([CREATE_CLUSTER, 0, 78, "other", []]) == [[0, 1]]
    assert (store.store.cluster_id, store.store.cluster_name) == (77, "ml")
    assert store.store.members() == [
        {
            **record,
            "address": "",
            "version": "",
            "priority": 0,
            "incarnation": None,
            "pending": False,
            "wants_vote": False,
        }
        for record in (
            {"id": 1, "name": "n1", "peer_address": "h1:2380"},
            {"id": 2, "name": "n2", "peer_address": "h2:2380"},
        )
    ]


def test_a_member_says_where_it_is_and_a_replaced_disk_is_refused() -> None:
    store = driver()
    store.apply(CREATE)
    assert store.apply(PUBLISH) == [[0, 1]]
    moved = [*PUBLISH[:5], "h9:2379", "h9:2380", "0.2.0"]
    assert store.apply(moved) == [[0, 1]]
    replaced = [*PUBLISH[:4], b"another", *PUBLISH[5:]]
    assert store.apply(replaced)[0][1] == "incarnation_mismatch"
    assert store.store.members()[0] == {
        "id": 1,
        "name": "n1",
        "address": "h9:2379",
        "peer_address": "h9:2380",
        "version": "0.2.0",
        "priority": 0,
        "incarnation": b"incarnation",
        "pending": False,
        "wants_vote": False,
    }


def test_a_member_says_how_much_it_is_preferred() -> None:
    store = driver()
    store.apply(CREATE)
    assert store.apply([*PUBLISH, 7]) == [[0, 1]]
    assert [member["priority"] for member in store.store.members()] == [7, 0]
    store.apply(PUBLISH)
    assert store.store.members()[0]["priority"] == 0, "what it does not say any more does not hold"
    for bad in (-1, 1001, True, "7", None, 1.0):
        assert store.apply([*PUBLISH, bad])[0][1] == "invalid_request"


def test_what_members_returns_is_a_copy() -> None:
    store = driver()
    store.apply(CREATE)
    store.store.members()[0]["name"] = "changed"
    assert store.store.members()[0]["name"] == "n1"


def test_identity_settings_and_configuration_survive_a_restart() -> None:
    store = driver()
    store.apply([*CREATE, Settings(key_bytes_max=10).to_items()])
    store.apply(PUBLISH)
    store.apply_entry(ENTRY_CONFIGURATION, VOTERS)
    assert store.store.configuration == VOTERS
    store.commit()
    again = Driver(store.store.keyspace)
    assert (again.store.cluster_id, again.store.cluster_name, again.store.configuration) == (77, "ml", VOTERS)
    assert again.store.members() == store.store.members()
    for one in (store, again):
        assert one.apply(put(b"k" * 11))[0][1] == "key_too_large"
    assert again.store.digest == store.store.digest


def test_replicated_settings_decide_whatever_a_member_was_started_with() -> None:
    store = driver()
    assert store.apply(put(b"k" * 11))[0][0] == 0
    store.apply([*CREATE, {"key_bytes_max": 10, "value_bytes_max": 5, "of_a_later_version": 1}])
    assert store.apply(put(b"k" * 11))[0][1] == "key_too_large"
    assert store.apply(put(b"k" * 10, b"v" * 6))[0][1] == "value_too_large"
    assert store.apply(put(b"k" * 10, b"v" * 5))[0][0] == 0


def test_settings_are_the_limits_that_apply_uses() -> None:
    settings = settings_of(LIMITS)
    assert settings == Settings()
    assert settings_from(settings.to_items()) == settings
    for bad in (
        None,
        [],
        {"session_window": 0},
        {"session_window": "4"},
        {"session_window": True},
        {"session_window": 2**70},
    ):
        assert settings_from(bad) is None


@pytest.mark.parametrize(
    "command",
    [
        CREATE[:4],
        [*CREATE, 1],
        [*CREATE, {}, {}],
        [CREATE_CLUSTER, 0, 0, "ml", []],
        [CREATE_CLUSTER, 0, 2**63, "ml", []],
        [CREATE_CLUSTER, 0, 77, b"ml", []],
        [CREATE_CLUSTER, 0, 77, "m\nl", []],
        [CREATE_CLUSTER, 0, 77, "ml", [[1, "n1"]]],
        [CREATE_CLUSTER, 0, 77, "ml", [[0, "n1", ""]]],
        [CREATE_CLUSTER, 0, 77, "ml", 5],
        PUBLISH[:7],
        [PUBLISH_MEMBER, 0, -1, *PUBLISH[3:]],
        [PUBLISH_MEMBER, 0, 1, 5, *PUBLISH[4:]],
        [PUBLISH_MEMBER, 0, 1, "n1", [], *PUBLISH[5:]],
        [PUBLISH_MEMBER, 0, 1, "n1", -1, *PUBLISH[5:]],
    ],
)
def test_malformed_system_commands_are_refused(command: list[Any]) -> None:
    store = driver()
    assert store.apply(command)[0][1] == "invalid_request"
    assert (store.store.cluster_id, store.store.members()) == (0, [])


def test_an_empty_store_has_no_configuration() -> None:
    store = Store.open(MemoryKeyspace(), LIMITS)
    assert (store.configuration, store.applied_index, store.applied_term, store.revision) == (b"", 0, 0, 1)
    assert (store.compact_revision, store.clock_ms, store.digest, store.durable_applied_index) == (-1, 0, 0, 0)


def configure(store: Driver, *voters: int, learners: tuple[int, ...] = (), **joint: frozenset[int]) -> None:
    configuration = Configuration(frozenset(voters), learners=frozenset(learners), **joint)
    store.apply_entry(ENTRY_CONFIGURATION, encode_configuration(configuration))


def names(store: Driver) -> list[str]:
    return [member["name"] for member in store.store.members()]


def test_a_member_is_recorded_then_configured_and_forgotten_for_good_when_it_is_removed() -> None:
    store = driver()
    store.apply(CREATE)
    assert store.apply([RECORD_MEMBER, 0, 3, "n3", "h3:2380", True]) == [[0, 1]]
    assert (store.store.members()[2]["pending"], store.store.members()[2]["wants_vote"]) == (True, True)
    configure(store, 1, 2)
    assert names(store) == ["n1", "n2", "n3"], "a record waits for its configuration"
    configure(store, 1, 2, learners=(3,))
    assert (store.store.members()[2]["pending"], store.store.members()[2]["wants_vote"]) == (False, True)
    configure(store, 1, 2, 3)
    assert not store.store.members()[2]["wants_vote"], "it has what it wanted"
    configure(store, 1, 3)
    assert names(store) == ["n1", "n3"]
    assert store.store.removed_members() == [2]
    for late in ([*PUBLISH[:2], 2, *PUBLISH[3:]], [RECORD_MEMBER, 0, 2, "n2", "h2:2380", False]):
        assert store.apply(late)[0][1] == "invalid_request"
    store.commit()
    again = Driver(store.store.keyspace)
    assert again.store.members() == store.store.members()
    assert again.store.removed_members() == [2]


def test_a_demoted_voter_of_a_joint_configuration_is_no_former_member() -> None:
    store = driver()
    store.apply(CREATE)
    configure(store, 1, voters_outgoing=frozenset({1, 2}), learners_next=frozenset({2}))
    assert names(store) == ["n1", "n2"]
    configure(store, 1, learners=(2,))
    assert store.store.removed_members() == []


@pytest.mark.parametrize(
    "command",
    [
        [RECORD_MEMBER, 0, 3, "n3", "h3:2380"],
        [RECORD_MEMBER, 0, 0, "n3", "h3:2380", True],
        [RECORD_MEMBER, 0, 3, "n1", "h3:2380", True],
        [RECORD_MEMBER, 0, 3, "n3", 2380, True],
        [FORGET_MEMBER, 0, 1],
        [FORGET_MEMBER, 0, 9],
        [FORGET_MEMBER, 0],
    ],
)
def test_records_that_make_no_sense_change_nothing(command: list[Any]) -> None:
    store = driver()
    store.apply(CREATE)
    before = store.store.members()
    assert store.apply(command)[0][1] == "invalid_request"
    assert store.store.members() == before


def test_a_record_that_no_configuration_named_can_be_forgotten_and_its_id_does_not_come_back() -> None:
    store = driver()
    store.apply(CREATE)
    store.apply([RECORD_MEMBER, 0, 3, "n3", "h3:2380", True])
    assert store.apply([FORGET_MEMBER, 0, 3]) == [[0, 1]]
    assert store.apply([RECORD_MEMBER, 0, 3, "n3", "h3:2380", True])[0][1] == "invalid_request"
    assert store.apply([RECORD_MEMBER, 0, 4, "n3", "h3:2380", True]) == [[0, 1]]


def test_members_that_go_together_go_in_the_same_order_everywhere() -> None:
    """Seed 331: after a restart the table is in the order of ids, before it in the order in which the members came."""
    store = driver()
    store.apply(CREATE)
    for node_id in (9, 5, 7):
        store.apply([RECORD_MEMBER, 0, node_id, f"n{node_id}", f"h{node_id}:2380", False])
    configure(store, 1, 2, learners=(5, 7, 9))
    store.commit()
    again = Driver(store.store.keyspace)
    for one in (store, again):
        configure(one, 1, 2)
        assert one.store.removed_members() == [5, 7, 9]
    assert store.store.digest == again.store.digest
