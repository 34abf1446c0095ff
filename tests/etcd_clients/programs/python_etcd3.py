"""What users of python `etcd3` do, against a real server: `python python_etcd3.py check HOST:PORT`, or `write HOST:PORT PREFIX`.

Runs in a virtual environment of its own; it ends with 0 only when everything came out as the library promises.
"""

import io
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait

import etcd3
from writing import raised, write_for_ever


def connect(endpoint, **options):
    host, _, port = endpoint.rpartition(":")
    if "TLS_CA" in os.environ:
        files = (os.environ[name] for name in ("TLS_CA", "TLS_CERT", "TLS_KEY"))
        options.update(zip(("ca_cert", "cert_cert", "cert_key"), files, strict=True))
    return etcd3.client(host=host, port=int(port), timeout=20, **options)


def keys_and_values(kv):
    assert kv.get("missing") == (None, None)
    kv.put("k/a", "1")
    value, meta = kv.get("k/a")
    assert (value, meta.key, meta.version, meta.lease_id) == (b"1", b"k/a", 1, 0)
    assert meta.create_revision == meta.mod_revision == meta.response_header.revision
    assert kv.put("k/a", "2", prev_kv=True).prev_kv.value == b"1"
    kv.put("k/b", b"\x00\xff")
    assert [(value, meta.key) for value, meta in kv.get_prefix("k/")] == [(b"2", b"k/a"), (b"\x00\xff", b"k/b")]
    ordered = kv.get_prefix("k/", sort_order="descend", sort_target="key")
    assert [meta.key for _, meta in ordered] == [b"k/b", b"k/a"]
    assert [value for value, _ in kv.get_range("k/b", "k/c")] == [b"\x00\xff"]
    assert kv.get_prefix_response("k/", keys_only=True).count == 2
    assert kv.put_if_not_exists("k/a", "3") is False
    assert kv.put_if_not_exists("k/c", "3") is True
    assert kv.replace("k/a", "wrong", "4") is False
    assert kv.replace("k/a", "2", "4") is True
    assert kv.get("k/a")[0] == b"4"
    assert len(list(kv.get_all())) >= 3
    assert kv.delete("k/c") is True
    assert kv.delete("k/c") is False
    assert kv.delete("k/b", prev_kv=True, return_response=True).prev_kvs[0].value == b"\x00\xff"
    assert kv.delete_prefix("k/").deleted == 1


def transactions(kv):
    to = kv.transactions
    kv.put("t", "1")
    done, answers = kv.transaction(
        compare=[to.value("t") == "1", to.version("t") > 0, to.create("missing") == 0, to.mod("t") != 0],
        success=[to.put("t", "2"), to.get("t"), to.delete("missing")],
        failure=[],
    )
    assert done is True
    assert answers[1][0][0] == b"2"
    nested = to.txn(compare=[to.version("t") == 2], success=[to.put("n", "1")], failure=[])
    done, _ = kv.transaction(compare=[to.value("t") == "1"], success=[], failure=[nested])
    assert done is False
    assert kv.get("n")[0] == b"1"
    double = raised(kv.transaction, [], [to.put("t", "1"), to.put("t", "2")], [])
    assert "duplicate key given in txn request" in str(double), double


def watches(kv):
    heard, done = [], threading.Event()

    def on_response(response):
        heard.extend(response.events)
        if len(heard) >= 3:
            done.set()

    watch_id = kv.add_watch_prefix_callback("w/", on_response, prev_kv=True)
    kv.put("w/a", "1")
    kv.put("w/a", "2")
    kv.delete("w/a")
    assert done.wait(20), heard
    kinds = [(type(event).__name__, event.value, event.prev_value) for event in heard]
    assert kinds == [("PutEvent", b"1", b""), ("PutEvent", b"2", b"1"), ("DeleteEvent", b"", b"2")], kinds
    kv.cancel_watch(watch_id)
    revision = kv.get_prefix_response("w/").header.revision
    events, cancel = kv.watch_prefix("w/", start_revision=revision - 2)
    assert [next(events).key for _ in range(3)] == [b"w/a"] * 3
    cancel()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(kv.watch_once, "w/once", timeout=20)
        while not found.done():  # a put before the watch is made is never heard
            kv.put("w/once", "1")
            wait([found], timeout=0.1)
    assert found.result().value == b"1"
    kv.put("w/c", "1")
    kv.compact(kv.get_prefix_response("w/").header.revision)
    events, _ = kv.watch("w/c", start_revision=1)
    compacted = raised(next, events)
    assert isinstance(compacted, etcd3.exceptions.RevisionCompactedError), compacted
    assert compacted.compacted_revision > 1


def leases_and_locks(kv):
    lease = kv.lease(60)
    kv.put("l/a", "1", lease=lease)
    assert lease.granted_ttl == 60
    assert 0 < lease.remaining_ttl <= 60
    assert list(lease.keys) == [b"l/a"]
    assert [answer.TTL for answer in lease.refresh()] == [60]
    lease.revoke()
    assert kv.get("l/a")[0] is None
    chosen = kv.lease(60, lease_id=123456)
    assert chosen.id == 123456
    chosen.revoke()
    with kv.lock("lock", ttl=30) as first:
        assert first.is_acquired()
        second = kv.lock("lock", ttl=30)
        assert second.acquire(timeout=1) is False
        threading.Timer(0.3, first.release).start()
        assert second.acquire(timeout=20) is True
        assert second.release()


def house(kv):
    status = kv.status()
    assert status.version.startswith("3.")
    assert status.db_size > 0
    (member,) = kv.members
    assert status.leader.id == member.id
    assert member.name == "n1"
    assert list(kv.list_alarms()) == []
    assert kv.create_alarm()[0].alarm_type == 1
    full = raised(kv.put, "full", "1")
    assert "database space exceeded" in str(full), full
    assert [alarm.alarm_type for alarm in kv.list_alarms()] == [1]
    for alarm in kv.list_alarms():
        kv.disarm_alarm(alarm.member_id)
    assert list(kv.list_alarms()) == []
    assert isinstance(kv.hash(), int)
    kv.defragment()
    backup = io.BytesIO()
    kv.snapshot(backup)
    assert len(backup.getvalue()) % 512 == 32


def check(endpoint):
    with connect(endpoint) as kv:
        for part in (keys_and_values, transactions, watches, leases_and_locks, house):
            began = time.monotonic()
            part(kv)
            print(f"{part.__name__}: {time.monotonic() - began:.2f} s", flush=True)


def write(endpoint, prefix):
    kv = connect(endpoint)
    write_for_ever(prefix, lambda key, value: kv.put(key, value))


if __name__ == "__main__":
    {"check": check, "write": write}[sys.argv[1]](*sys.argv[2:])
