"""What users of Rust's `etcd-client` do, through its Python wrapper: `python python_rust.py check HOST:PORT,...`, or `write HOST:PORT,... PREFIX`.

Its lock is the server's own (v3lock), with a lease that it keeps; the wrapper does not say what a granted lease is called. It ends with 0 only when everything came out as the library promises.
"""

import asyncio
import sys
import time

from etcd_client import Client, Compare, CompareOp, CondVar, EtcdLockOption, Txn, TxnOp
from writing import write_for_ever


def client(endpoints):
    return Client([f"http://{endpoint}" for endpoint in endpoints.split(",")])


async def keys_and_values(etcd):
    async with etcd.connect() as kv:
        assert await kv.get(b"missing") is None
        await kv.put(b"k/a", b"1")
        await kv.put(b"k/b", b"\x00\xff")
        assert bytes(await kv.get(b"k/a")) == b"1"
        found = [(bytes(key), bytes(value)) for key, value in await kv.get_prefix(b"k/")]
        assert sorted(found) == [(b"k/a", b"1"), (b"k/b", b"\x00\xff")], found
        await kv.delete(b"k/a")
        assert await kv.get(b"k/a") is None
        await kv.delete_prefix(b"k/")
        assert [key async for key in _each(await kv.keys_prefix(b"k/"))] == []


async def _each(items):
    for item in items:
        yield item


async def transactions(etcd):
    async with etcd.connect() as kv:
        await kv.put(b"t", b"1")
        swap = Txn().when([Compare.value(b"t", CompareOp.EQUAL, b"1")])
        swap = swap.and_then([TxnOp.put(b"t", b"2"), TxnOp.get(b"t")]).or_else([TxnOp.delete(b"t")])
        assert (await kv.txn(swap)).succeeded() is True
        assert bytes(await kv.get(b"t")) == b"2"
        assert (await kv.txn(swap)).succeeded() is False
        assert await kv.get(b"t") is None


async def watches(etcd):
    async with etcd.connect() as kv:
        ready, heard = CondVar(), []

        async def listen():
            async for event in kv.watch_prefix(b"w/", ready_event=ready):
                heard.append((str(event.event), bytes(event.key), bytes(event.value)))
                if len(heard) == 3:
                    return

        listening = asyncio.create_task(listen())
        await ready.wait()
        await kv.put(b"w/a", b"1")
        await kv.put(b"w/a", b"2")
        await kv.delete(b"w/a")
        await asyncio.wait_for(listening, 20)
        assert [(kind.rpartition(".")[2], key, value) for kind, key, value in heard] == [
            ("PUT", b"w/a", b"1"),
            ("PUT", b"w/a", b"2"),
            ("DELETE", b"w/a", b""),
        ], heard


async def locks(etcd):
    """One after the other, however many there are."""
    inside = []

    async def enter(number):
        async with etcd.with_lock(EtcdLockOption(lock_name=b"lock", timeout=20.0, ttl=30)) as kv:
            assert not inside, inside
            inside.append(number)
            await kv.put(b"locked/%d" % number, b"1")
            inside.remove(number)

    await asyncio.gather(*(enter(number) for number in range(4)))


async def check(endpoints):
    for part in (keys_and_values, transactions, watches, locks):
        began = time.monotonic()
        await part(client(endpoints))
        print(f"{part.__name__}: {time.monotonic() - began:.2f} s", flush=True)


def write(endpoints, prefix):
    loop = asyncio.new_event_loop()

    async def put(key, value):
        async with client(endpoints).connect() as kv:
            await asyncio.wait_for(kv.put(key.encode(), value.encode()), 5)

    write_for_ever(prefix, lambda key, value: loop.run_until_complete(put(key, value)))


if __name__ == "__main__":
    asyncio.run(check(sys.argv[2])) if sys.argv[1] == "check" else write(*sys.argv[2:])
