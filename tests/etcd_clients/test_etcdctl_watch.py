"""etcdctl: watch in all its forms, and make-mirror, which lives on one."""

import json
from typing import Any

import pytest

from raftkv_jepsen.machines.waiting import wait_until

from .etcdctl import Etcdctl, Staying

pytestmark = pytest.mark.integration


def test_from_now_on(ctl: Etcdctl, key: str) -> None:
    with ctl.staying("watch", key, "--prefix", "--prev-kv") as watch:
        _wait_begun(ctl, watch, f"{key}begin")
        ctl("put", f"{key}a", "1")
        assert watch.lines(3) == ["PUT", f"{key}a", "1"]
        ctl("put", f"{key}a", "2")
        assert watch.lines(5) == ["PUT", f"{key}a", "1", f"{key}a", "2"]
        ctl("del", f"{key}a")
        assert watch.lines(5) == ["DELETE", f"{key}a", "2", f"{key}a", ""]


def _wait_begun(ctl: Etcdctl, watch: Staying, key: str) -> None:
    """A watch from now on says nothing of its beginning: put until it hears."""

    def heard() -> bool:
        ctl("put", key, "begin")
        try:
            watch.until("PUT", 0.5)
        except AssertionError:
            return False
        return True

    wait_until(heard, "the watch to have begun")
    ctl("put", key, "done")
    watch.until("done")


def test_from_the_past(ctl: Etcdctl, key: str) -> None:
    revision = ctl.json("put", f"{key}a", "1")["header"]["revision"]
    ctl("put", f"{key}b", "2")
    ctl("txn", given=f"\nput {key}a 3\ndel {key}b\n\n\n")
    with ctl.staying("watch", key, "--prefix", f"--rev={revision}") as watch:
        assert watch.lines(9) == ["PUT", f"{key}a", "1", "PUT", f"{key}b", "2", "PUT", f"{key}a", "3"]
        assert watch.lines(3) == ["DELETE", f"{key}b", ""]
        ctl("put", f"{key}a", "now")
        assert watch.lines(3) == ["PUT", f"{key}a", "now"]
    with ctl.staying("watch", f"{key}b", f"--rev={revision + 1}") as one:
        assert one.lines(6) == ["PUT", f"{key}b", "2", "DELETE", f"{key}b", ""]
    with ctl.staying("watch", f"{key}a", f"{key}b", f"--rev={revision}", "--write-out=json") as span:
        answer = json.loads(span.line())
        assert answer["Header"]["revision"] >= revision
        assert {event["kv"]["key"] for event in answer["Events"]} == {ctl.json("get", f"{key}a")["kvs"][0]["key"]}


def test_what_was_compacted(ctl: Etcdctl, key: str) -> None:
    revision = ctl.json("put", key, "1")["header"]["revision"]
    ctl("put", key, "2")
    ctl("put", key, "3")
    ctl("compaction", str(revision + 1))
    with ctl.staying("watch", key, f"--rev={revision}") as watch:
        watch.until("etcdserver: mvcc: required revision has been compacted")
        assert watch.ended() != 0
    with ctl.staying("watch", key, f"--rev={revision + 1}") as watch:
        assert watch.lines(6) == ["PUT", key, "2", "PUT", key, "3"]


def test_a_command_for_each_event(ctl: Etcdctl, key: str) -> None:
    revision = ctl.json("put", key, "value of it")["header"]["revision"]
    shown = "echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_REVISION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"
    with ctl.staying("watch", key, f"--rev={revision}", "--", "sh", "-c", shown) as watch:
        assert watch.lines(3) == ["PUT", key, "value of it"]
        assert watch.line() == f'"PUT" {revision} "{key}" "value of it"'


def test_at_a_terminal(ctl: Etcdctl, key: str) -> None:
    """Several watches on one stream, and a question for progress."""
    revision = ctl.json("put", f"{key}a", "1")["header"]["revision"]
    ctl("put", f"{key}b", "2")
    with ctl.staying("watch", "-i") as watch:
        watch.type(f"watch --rev={revision} {key}a")
        assert watch.lines(3) == ["PUT", f"{key}a", "1"]
        watch.type(f"watch --rev={revision} --prefix {key}")
        assert watch.lines(6) == ["PUT", f"{key}a", "1", "PUT", f"{key}b", "2"]
        watch.type("progress")
        assert watch.until("progress notify: ") == f"progress notify: {revision + 1}"
        watch.type("nonsense")
        watch.until("Invalid command")
        ctl("put", f"{key}b", "3")
        watch.until("PUT")
        assert watch.lines(2) == [f"{key}b", "3"]


def test_make_mirror(ctl: Etcdctl, key: str, make: Any) -> None:
    target = make()
    there = Etcdctl(target.endpoints)
    for number in range(30):
        ctl("put", f"{key}{number}", str(number))
    with ctl.staying("make-mirror", target.endpoints, f"--prefix={key}", f"--dest-prefix=copied-{key}"):

        def copied() -> str:
            return there("get", "copied-", "--prefix", "--print-value-only")

        wait_until(lambda: len(copied().split()) == 30, "what was there before", seen=copied)
        ctl("put", f"{key}later", "it goes on")
        ctl("del", f"{key}0")
        ctl("txn", given=f"\nput {key}1 first\nput {key}2 second\n\n\n")
        wait_until(
            lambda: there("get", f"copied-{key}later", "--print-value-only") == "it goes on\n", "what came later"
        )
        wait_until(lambda: there("get", f"copied-{key}0") == "", "what was deleted")
        wait_until(lambda: there("get", f"copied-{key}2", "--print-value-only") == "second\n", "a transaction")
        assert there("get", f"copied-{key}1", "--print-value-only") == "first\n"
