"""Patroni 4 with PostgreSQL, and three members of the server under test as its etcd: bootstrap, switchover, crash, and members that fall out."""

from pathlib import Path
from typing import Any, Iterator

import pytest

from raftkv_jepsen.machines.waiting import holds_for, wait_until

from .environments import missing
from .patroni import TTL_SECONDS, WAIT_SECONDS, PatroniCluster, Postgres, can_be_somebody
from .servers import Servers

pytestmark = [pytest.mark.integration, pytest.mark.patroni, pytest.mark.long]


@pytest.fixture
def servers(make: Any) -> Servers:
    return make(size=3)


@pytest.fixture
def postgres(servers: Servers, tmp_path: Path) -> Iterator[PatroniCluster]:
    """Bootstrapped by one, followed by the other."""
    if not can_be_somebody():
        missing("PostgreSQL does not run as root, and there are no user namespaces here")
    cluster = PatroniCluster(tmp_path, servers.endpoints)
    try:
        for member in cluster.members:
            member.start()
        leader = cluster.wait_leader()
        cluster.wait_replicating()
        leader.ask("create table told (number int primary key)")
        yield cluster
    except Exception:
        print(cluster.report())
        raise
    finally:
        cluster.close()


def insert(member: Postgres, number: int) -> None:
    wait_until(
        lambda: member.can(f"insert into told values ({number}) on conflict do nothing"),
        f"{member.name} to take writes",
        deadline_s=WAIT_SECONDS,
    )


def wait_numbers(member: Postgres, numbers: list[int]) -> None:
    def held() -> str:
        return member.ask("select string_agg(number::text, ',' order by number) from told")

    wait_until(lambda: held() == ",".join(map(str, numbers)), f"{numbers} on {member.name}", seen=held)


def test_switchover_and_crash(postgres: PatroniCluster) -> None:
    first = postgres.wait_leader()
    second = postgres.other(first)
    insert(first, 1)
    wait_numbers(second, [1])
    assert not second.can("insert into told values (0)"), "a replica takes no writes"

    postgres.ctl("switchover", "--leader", first.name, "--candidate", second.name, "--force")
    assert postgres.wait_leader(among=[second]) is second
    postgres.wait_replicating()
    insert(second, 2)
    wait_numbers(first, [1, 2])

    second.kill()
    assert postgres.wait_leader(among=[first]) is first, "the lease of the dead one ran out, the other took over"
    wait_numbers(first, [1, 2])
    insert(first, 3)
    second.start()
    postgres.wait_replicating()
    wait_numbers(second, [1, 2, 3])


def test_members_of_the_store_fall_out(postgres: PatroniCluster, servers: Servers) -> None:
    """PostgreSQL does not change its leader because the store does; when the store has no quorum, nobody leads; then all goes on."""
    leader = postgres.wait_leader()
    gone = servers.leader()
    gone.kill()
    held = f"{leader.name} to lead"
    holds_for(lambda: leader.is_in_recovery() == "f", held, seconds=1.5 * TTL_SECONDS)
    insert(leader, 1000)
    minority = servers.leader(servers.others(gone))
    minority.kill()
    wait_until(
        lambda: leader.is_in_recovery() == "t",  # refused while it restarts as a replica
        "a leader that cannot renew its lease to step down",
        deadline_s=WAIT_SECONDS,
        interval_s=0.5,
    )
    for node in (gone, minority):
        node.start()
    for node in (gone, minority):
        node.wait_ready()
    after = postgres.wait_leader()
    insert(after, 1001)
    postgres.wait_replicating()
    wait_numbers(postgres.other(after), [1000, 1001])
