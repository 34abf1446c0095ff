"""etcdctl and raftkv's own recipes in one queue: who uses the one waits for who uses the other."""

import threading

import pytest

import raftkv
from raftkv.errors import NotAcquired
from raftkv_jepsen.machines.waiting import wait_until

from .etcdctl import Etcdctl
from .servers import RAFTKV, Servers

pytestmark = pytest.mark.integration


@pytest.fixture
def kv(server: Servers) -> raftkv.Client:
    if server.kind != RAFTKV:
        pytest.skip("the native client speaks to raftkv")
    return raftkv.Client(server.endpoints)


def test_one_lock(ctl: Etcdctl, key: str, kv: raftkv.Client) -> None:
    name = f"{key}lock"
    with kv:
        with kv.lock(name) as ours:
            with ctl.staying("lock", name) as theirs:
                wait_until(lambda: len(ours.queue()) == 2, "etcdctl to queue up")
                assert not theirs.heard
                ours.release()
                held = theirs.line()
                with pytest.raises(NotAcquired):
                    kv.lock(name).acquire(0)
                assert [holder.key.decode() for holder in ours.queue() if holder.holds] == [held]
                theirs.interrupt()
            ours.acquire(30)
        with ctl.staying("lock", name) as theirs:
            theirs.line()


def test_one_election(ctl: Etcdctl, key: str, kv: raftkv.Client) -> None:
    name = f"{key}office"
    with kv:
        election = kv.election(name)
        election.campaign("ours")
        with ctl.staying("elect", "-l", name) as observer:
            assert (observer.line().startswith(f"{name}/"), observer.line()) == (True, "ours")
            with ctl.staying("elect", name, "theirs") as rival:
                wait_until(lambda: len(kv.lock(name).queue()) == 2, "etcdctl to stand")
                election.resign()
                assert (rival.line().startswith(f"{name}/"), rival.line()) == (True, "theirs")
                leader = election.leader()
                assert leader is not None
                assert leader.value == b"theirs"
                won = threading.Event()

                def campaign() -> None:
                    kv.election(name).campaign("again")
                    won.set()

                candidate = threading.Thread(target=campaign)
                candidate.start()
                rival.interrupt()
                assert won.wait(30)
                candidate.join()
