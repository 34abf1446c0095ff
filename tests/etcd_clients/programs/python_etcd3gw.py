"""What users of `etcd3gw` do, over the JSON gateway of a real server: `python python_etcd3gw.py check HOST:PORT`, or `write HOST:PORT PREFIX`.

Runs in a virtual environment of its own; it ends with 0 only when everything came out as the library promises.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait

import etcd3gw
from writing import raised, write_for_ever


def connect(endpoint, **options):
    host, _, port = endpoint.rpartition(":")
    if "TLS_CA" in os.environ:
        files = (os.environ[name] for name in ("TLS_CA", "TLS_CERT", "TLS_KEY"))
        options.update(zip(("ca_cert", "cert_cert", "cert_key"), files, strict=True), protocol="https")
    return etcd3gw.client(host=host, port=int(port), timeout=20, **options)


def keys_and_values(kv):
    assert kv.get("missing") == []
    assert kv.put("k/a", "1")
    assert kv.get("k/a") == [b"1"]
    ((value, meta),) = kv.get("k/a", metadata=True)
    assert (value, meta["key"], meta["version"]) == (b"1", b"k/a", "1")
    kv.put("k/b", b"\x00\xff")
    assert [value for value, _ in kv.get_prefix("k/")] == [b"1", b"\x00\xff"]
    assert [value for value, _ in kv.get_prefix("k/", sort_order="descend")] == [b"\x00\xff", b"1"]
    assert len(kv.get_all()) >= 2
    assert kv.create("k/a", "3") is False
    assert kv.create("k/c", "3") is True
    assert kv.replace("k/a", "wrong", "4") is False
    assert kv.replace("k/a", "1", "4") is True
    assert kv.delete("k/c") is True
    assert kv.delete("k/c") is False
    assert kv.delete_prefix("k/") is True
    assert kv.get_prefix("k/") == []


def transactions(kv):
    body = {
        "compare": [{"key": "dA==", "result": "EQUAL", "target": "CREATE", "create_revision": 0}],
        "success": [{"request_put": {"key": "dA==", "value": "MQ=="}}],
        "failure": [{"request_range": {"key": "dA=="}}],
    }
    assert kv.transaction(body)["succeeded"] is True
    answer = kv.transaction(body)
    assert "succeeded" not in answer
    assert answer["responses"][0]["response_range"]["kvs"][0]["value"] == "MQ=="
    double = {"success": [{"request_put": {"key": "dA=="}}, {"request_put": {"key": "dA=="}}]}
    error = raised(kv.transaction, double)
    assert isinstance(error, etcd3gw.exceptions.Etcd3Exception), error
    assert "duplicate key given in txn request" in str(error.detail_text), error.detail_text


def watches(kv):
    events, cancel = kv.watch_prefix("w/")
    kv.put("w/a", "1")
    kv.put("w/a", "2")
    kv.delete("w/a")
    heard = [next(events) for _ in range(3)]
    assert [(event.get("type"), event["kv"]["key"]) for event in heard] == [
        (None, b"w/a"),
        (None, b"w/a"),
        ("DELETE", b"w/a"),
    ], heard
    cancel()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(kv.watch_once, "w/once", timeout=20)
        while not found.done():  # a put before the watch is made is never heard
            kv.put("w/once", "1")
            wait([found], timeout=0.1)
    assert found.result()["kv"]["value"] == b"1"
    try:
        kv.watch_once("w/never", timeout=0.2)
    except etcd3gw.exceptions.WatchTimedOut:
        pass
    else:
        raise AssertionError("an event that nobody made")


def leases_and_locks(kv):
    lease = kv.lease(60)
    kv.put("l/a", "1", lease=lease)
    assert 0 < lease.ttl() <= 60
    assert lease.keys() == [b"l/a"]
    assert lease.refresh() == 60
    assert lease.revoke()
    assert kv.get("l/a") == []
    assert lease.refresh() == -1, "a lease that is gone has no TTL in the answer"
    assert lease.ttl() == -1
    first, second = kv.lock("lock", ttl=30), kv.lock("lock", ttl=30)
    assert first.acquire()
    assert first.is_acquired()
    assert not second.acquire()
    assert first.refresh() == 30
    assert first.release()
    assert second.acquire()
    assert second.release()


def house(kv):
    status = kv.status()
    assert status["version"].startswith("3.")
    assert int(status["dbSize"]) > 0
    (member,) = kv.members()
    assert status["leader"] == member["ID"]


def check(endpoint):
    for options in ({}, {"api_path": "/v3/"}, {"api_path": "/v3beta/"}):
        kv = connect(endpoint, **options)
        for prefix in ("k/", "w/"):
            kv.delete_prefix(prefix)
        for part in (keys_and_values, transactions, watches, leases_and_locks, house):
            kv.delete("t")
            began = time.monotonic()
            part(kv)
            print(f"{options} {part.__name__}: {time.monotonic() - began:.2f} s", flush=True)


def write(endpoint, prefix):
    kv = connect(endpoint)
    write_for_ever(prefix, kv.put)


if __name__ == "__main__":
    {"check": check, "write": write}[sys.argv[1]](*sys.argv[2:])
