"""A rolling upgrade to a version with a new write, and back: the write waits for the last member, and a member that is too old stops."""

import pytest

from raftkv.errors import Unsupported
from raftkv.wire.commands import PUT
from raftkv.wire.protocol import MEMBERS
from raftkv_jepsen.testbuild import program, versions

from .harness.cluster import Cluster
from .harness.node import Node
from .harness.process import RAFTKV
from .harness.waiting import wait_until

pytestmark = pytest.mark.integration

NEXT = "0.2.0"


def restart_as(node: Node, version: str) -> None:
    """The product is 0.1.0; the next version is a test build that knows one write more."""
    assert node.terminate() == 0
    become(node, version)
    node.start()
    node.wait_ready()


def become(node: Node, version: str) -> None:
    node.program = program.PROGRAM if version == NEXT else RAFTKV
    node.environment = {**program.ENVIRONMENT, versions.VERSION: NEXT} if version == NEXT else {}


def write(node: Node, operation: int, value: bytes) -> None:
    """Raises what the member says; a follower asks the leader."""
    with node.connect() as connection:
        connection.call([operation, 0, b"key", value, 0, 0])


def said_versions(node: Node) -> set[str]:
    """What the log says of all members, as this one has it."""
    with node.connect() as connection:
        return {member["version"] for member in connection.call([MEMBERS])[1]}


@pytest.mark.long
def test_a_rolling_upgrade_and_a_member_that_goes_back(cluster: Cluster) -> None:
    write(cluster.leader(), PUT, b"old")
    first, second, third = (*cluster.followers(), cluster.leader())
    with pytest.raises(Unsupported, match="not known here"):
        write(third, versions.NEXT_PUT, b"too early")
    for node in (first, second):
        restart_as(node, NEXT)
    assert third.terminate() == 0  # the leader is one of the new ones from here on
    leader = cluster.leader(among=[first, second])
    wait_until(lambda: said_versions(leader) == {"0.1.0", NEXT}, "what the new ones say of themselves")
    with pytest.raises(
        Unsupported, match=f"operation {versions.NEXT_PUT} needs version {NEXT} on every member, {third.name} has 0.1.0"
    ):
        write(leader, versions.NEXT_PUT, b"too early")
    write(leader, PUT, b"in between")
    become(third, NEXT)
    third.start()
    third.wait_ready()
    wait_until(lambda: said_versions(cluster.leader()) == {NEXT}, "the last one to say what it is")
    write(cluster.leader(), versions.NEXT_PUT, b"new")

    # Back to the old version, past what it does not know: it stops, and the others go on.
    behind = cluster.followers()[0]
    behind.kill()
    others = cluster.others(behind)
    write(cluster.leader(among=others), versions.NEXT_PUT, b"newer")
    become(behind, "0.1.0")
    daemon = behind.start()
    assert daemon.wait_exit(30) == 1
    told = f"the log holds operation {versions.NEXT_PUT}, which this version of raftkv does not know: upgrade this member, its data is whole"
    assert told in daemon.log_text()
    write(cluster.leader(among=others), PUT, b"without it")
    become(behind, NEXT)
    behind.start()
    behind.wait_ready()
    cluster.wait_applied_equal()
    assert len({(s["applied_index"], s["digest"]) for s in cluster.statuses().values()}) == 1
