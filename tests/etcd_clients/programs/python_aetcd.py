"""What users of `aetcd` do, against a real server: `python python_aetcd.py check HOST:PORT`, or `write HOST:PORT PREFIX`.

Runs in a virtual environment of its own; it ends with 0 only when everything came out as the library promises.
"""

import asyncio
import io
import sys
import time

import aetcd
from writing import write_for_ever


def connected(endpoint, **options):
    host, _, port = endpoint.rpartition(":")
    return aetcd.Client(host=host, port=int(port), timeout=20, **options)


async def keys_and_values(kv):
    assert await kv.get(b"missing") is None
    await kv.put(b"k/a", b"1")
    found = await kv.get(b"k/a")
    assert (found.key, found.value, found.version, found.lease) == (b"k/a", b"1", 1, 0)
    assert (await kv.put(b"k/a", b"2", prev_kv=True)).prev_kv.value == b"1"
    await kv.put(b"k/b", b"\x00\xff")
    assert [item.key for item in await kv.get_prefix(b"k/")] == [b"k/a", b"k/b"]
    assert [item.key for item in await kv.get_prefix(b"k/", sort_order="descend")] == [b"k/b", b"k/a"]
    assert [item.value for item in await kv.get_range(b"k/b", b"k/c")] == [b"\x00\xff"]
    assert [item.value for item in await kv.get_prefix(b"k/", keys_only=True)] == [b"", b""]
    assert await kv.replace(b"k/a", b"wrong", b"3") is False
    assert await kv.replace(b"k/a", b"2", b"3") is True
    assert (await kv.delete(b"k/a", prev_kv=True)).prev_kv.value == b"3"
    assert (await kv.delete_prefix(b"k/")).deleted == 1


async def transactions(kv):
    to = kv.transactions
    await kv.put(b"t", b"1")
    done, _ = await kv.transaction(
        compare=[to.value(b"t") == b"1", to.version(b"t") > 0],
        success=[to.put(b"t", b"2"), to.get(b"t")],
        failure=[to.delete(b"t")],
    )
    assert done is True
    done, _ = await kv.transaction(compare=[to.value(b"t") == b"1"], success=[], failure=[to.delete(b"t")])
    assert done is False
    assert await kv.get(b"t") is None


async def watches(kv):
    watch = await kv.watch_prefix(b"w/", prev_kv=True)
    await kv.put(b"w/a", b"1")
    await kv.put(b"w/a", b"2")
    await kv.delete(b"w/a")
    heard = []
    async for event in watch:
        heard.append((event.kind, event.kv.value, event.prev_kv.value if event.prev_kv else None))
        if len(heard) == 3:
            break
    assert [kind for kind, _, _ in heard] == ["PUT", "PUT", "DELETE"], heard
    assert heard[1] == ("PUT", b"2", b"1"), heard
    await watch.cancel()
    found = asyncio.create_task(kv.watch_once(b"w/once", timeout=20))
    while not found.done():
        await kv.put(b"w/once", b"1")
        await asyncio.wait([found], timeout=0.1)
    assert found.result().kv.value == b"1"


async def leases_and_locks(kv):
    lease = await kv.lease(60)
    await kv.put(b"l/a", b"1", lease=lease)
    assert await lease.remaining_ttl() <= 60
    assert await lease.keys() == [b"l/a"]
    assert (await lease.refresh()).TTL == 60
    await lease.revoke()
    assert await kv.get(b"l/a") is None
    first, second = kv.lock(b"lock", ttl=30), kv.lock(b"lock", ttl=30)
    assert await first.acquire()
    assert await first.is_acquired()
    assert not await second.acquire(timeout=1)
    await first.release()
    assert await second.acquire(timeout=20)
    await second.release()


async def house(kv):
    status = await kv.status()
    assert status.version.startswith("3.")
    assert [member.name async for member in kv.members()] == ["n1"]
    assert [alarm async for alarm in kv.list_alarms()] == []
    assert isinstance(await kv.hash(), int)
    await kv.defragment()
    backup = io.BytesIO()
    await kv.snapshot(backup)
    assert len(backup.getvalue()) % 512 == 32
    await kv.compact((await kv.get_prefix(b"w/")).header.revision)


async def check(endpoint):
    async with connected(endpoint) as kv:
        for part in (keys_and_values, transactions, watches, leases_and_locks, house):
            began = time.monotonic()
            await part(kv)
            print(f"{part.__name__}: {time.monotonic() - began:.2f} s", flush=True)


def write(endpoint, prefix):
    loop = asyncio.new_event_loop()
    kv = connected(endpoint)
    loop.run_until_complete(kv.connect())
    write_for_ever(prefix, lambda key, value: loop.run_until_complete(kv.put(key.encode(), value.encode())))


if __name__ == "__main__":
    asyncio.run(check(sys.argv[2])) if sys.argv[1] == "check" else write(*sys.argv[2:])
