"""etcdctl: lease, lock and elect."""

import re

import pytest

from raftkv_jepsen.machines.waiting import wait_until

from .etcdctl import Etcdctl

pytestmark = pytest.mark.integration


def test_grant_list_revoke(ctl: Etcdctl, key: str) -> None:
    said = ctl("lease", "grant", "300")
    (lease,) = re.fullmatch(r"lease ([0-9a-f]+) granted with TTL\(300s\)\n", said).groups()  # type: ignore[union-attr]
    assert lease in ctl("lease", "list").splitlines()
    ctl("put", f"{key}a", "1", f"--lease={lease}")
    ctl("put", f"{key}b", "1", f"--lease={lease}")
    told = ctl("lease", "timetolive", lease)
    assert re.fullmatch(rf"lease {lease} granted with TTL\(300s\), remaining\((300|29\d)s\)\n", told)
    told = ctl("lease", "timetolive", lease, "--keys")
    assert re.search(rf"attached keys\(\[({key}a {key}b|{key}b {key}a)\]\)", told)
    assert ctl("lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert ctl("get", key, "--prefix") == ""
    assert ctl("lease", "timetolive", lease) == f"lease {lease} already expired\n"
    assert "etcdserver: requested lease not found" in ctl.refused("lease", "revoke", lease)


def test_forms_of_output(ctl: Etcdctl) -> None:
    granted = ctl.json("lease", "grant", "200")
    lease = format(granted["ID"], "x")
    assert granted["TTL"] == 200
    told = ctl.json("lease", "timetolive", lease)
    assert (told["id"], told["granted-ttl"]) == (granted["ID"], 200)
    assert 0 < told["ttl"] <= 200
    assert {"id": granted["ID"]} in ctl.json("lease", "list")["leases"]
    assert ctl.fields("lease", "timetolive", lease)["GrantedTTL"] == "200"
    assert "too large lease TTL" in ctl.refused("lease", "grant", "9000000001")


def test_keep_alive(ctl: Etcdctl) -> None:
    lease = ctl("lease", "grant", "60").split()[1]
    assert ctl("lease", "keep-alive", "--once", lease) == f"lease {lease} keepalived with TTL(60)\n"
    short = ctl("lease", "grant", "10").split()[1]  # long enough for another etcdctl to start in it
    with ctl.staying("lease", "keep-alive", short) as keeping:
        for _ in range(4):
            assert re.fullmatch(rf"lease {short} keepalived with TTL\(\d+\)", keeping.line())
        ctl("lease", "revoke", short)
        keeping.until(f"lease {short} expired or revoked.")
    gone = ctl.run("lease", "keep-alive", "--once", short)
    assert (gone.returncode, b"etcdserver: requested lease not found" in gone.stderr) == (2, True)
    ctl("lease", "revoke", lease)


def test_a_lease_that_nobody_keeps(ctl: Etcdctl, key: str) -> None:
    lease = ctl("lease", "grant", "10").split()[1]  # long enough for another etcdctl to put in it
    ctl("put", key, "1", f"--lease={lease}")
    wait_until(lambda: ctl("get", key) == "", "the key to go with its lease", deadline_s=25)
    wait_until(lambda: "already expired" in ctl("lease", "timetolive", lease), "the lease to be gone", deadline_s=5)


def test_lock(ctl: Etcdctl, key: str) -> None:
    """The second waits until the first lets go."""
    with ctl.staying("lock", key) as first:
        held = first.line()
        assert re.fullmatch(rf"{key}/[0-9a-f]+", held)
        assert ctl("get", held, "--keys-only") == f"{held}\n\n"
        with ctl.staying("lock", key) as second:
            wait_until(lambda: ctl("get", f"{key}/", "--prefix", "--keys-only").count(key) == 2, "the second to wait")
            assert second.is_running
            assert not second.heard
            first.interrupt()
            assert second.line() != held
            second.interrupt()
    wait_until(lambda: ctl("get", f"{key}/", "--prefix") == "", "nobody to hold it")


def test_lock_with_a_command(ctl: Etcdctl, key: str) -> None:
    said = ctl("lock", key, "--ttl=30", "--", "sh", "-c", "echo $ETCD_LOCK_KEY at $ETCD_LOCK_REV")
    assert re.fullmatch(rf"{key}/[0-9a-f]+ at \d+\n", said)
    assert ctl.run("lock", key, "--", "sh", "-c", "exit 3").returncode == 3
    assert ctl("get", f"{key}/", "--prefix") == ""


def test_a_holder_that_dies_loses_its_lock(ctl: Etcdctl, key: str) -> None:
    with ctl.staying("lock", key, "--ttl=2") as first:
        first.line()
    with ctl.staying("lock", key) as second:  # the first was killed and could not let go
        second.line()


def test_elect(ctl: Etcdctl, key: str) -> None:
    with ctl.staying("elect", key, "first") as first:
        assert (first.line().startswith(f"{key}/"), first.line()) == (True, "first")
        with ctl.staying("elect", "-l", key) as observer:
            assert (observer.line().startswith(f"{key}/"), observer.line()) == (True, "first")
            with ctl.staying("elect", key, "second") as second:
                wait_until(lambda: ctl("get", f"{key}/", "--prefix", "--keys-only").count(key) == 2, "a candidate")
                assert not second.heard
                first.interrupt()
                assert (second.line().startswith(f"{key}/"), second.line()) == (True, "second")
                assert (observer.line().startswith(f"{key}/"), observer.line()) == (True, "second")
                second.interrupt()
