"""Group: who is there, and who is still alive.

Each member has a key `NAME/MEMBER` on a lease of its own, so the list is what lives; who watches gets the whole list at each change,
read at one revision and followed by a watch from the next, so that nothing falls between the two.
"""

from typing import TYPE_CHECKING, Any, AsyncIterator, Iterator, NamedTuple, cast

from raftkv.client.requests import Bytes, as_bytes
from raftkv.client.results import KeyValue
from raftkv.client.txn import Put, missing
from raftkv.errors import InvalidRequest, NotHeld, RaftKVError
from raftkv.recipes.places import check_seconds, enter_lease, leave, nonce, prefix_of, shown, surely_not
from raftkv.recipes.verbs import Kept, Verbs, blocking, iterate, run
from raftkv.units import Revision

if TYPE_CHECKING:
    import asyncio
    import threading

    from raftkv.client.sync import Client

TTL_S = 10.0


class GroupMember(NamedTuple):
    """One that is there."""

    name: bytes
    value: bytes
    """What it says of itself, such as its address."""
    joined: Revision
    """At this revision: the order in which they came, and the fencing token of its membership."""


class AsyncGroup:
    """Those who are there; made by `kv.group(name)`. One object is for one member, or for one who only looks."""

    def __init__(self, kv: Verbs, name: Bytes, *, ttl: float = TTL_S, lease: Any = None) -> None:
        check_seconds(ttl, "ttl")
        self._kv = kv
        self._name = name
        self._prefix = prefix_of(name)
        self._ttl = ttl
        self._lease_of_user = lease
        self._joined: tuple[bytes, Revision, Kept, bool] | None = None

    @property
    def lost(self) -> "asyncio.Event":
        """Set when our membership is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("asyncio.Event", self._membership()[2].lost)

    async def join(self, value: Bytes = b"", *, member: Bytes = b"") -> bytes:
        """Be there from now on, under a name of our own or a drawn one, which is returned. Raises InvalidRequest when the name is taken."""
        if self._joined is not None:
            raise InvalidRequest(f"this object is a member of group {shown(self._name)!r} already")
        lease, owns_lease = await enter_lease(self._kv, self._ttl, self._lease_of_user, None)
        name = as_bytes(member) or f"{lease.id:x}-{nonce()}".encode()
        key = self._prefix + name
        try:
            done = await self._kv.txn().if_(missing(key)).then(Put(key, value, lease=lease.id)).commit()
        except BaseException as error:
            await leave(self._kv, key, 0, lease, owns_lease)
            if isinstance(error, RaftKVError):
                raise surely_not(error, f"a place in group {shown(self._name)!r}") from error
            raise
        if not done.succeeded:
            if owns_lease:
                await lease.revoke()
            raise InvalidRequest(f"group {shown(self._name)!r} has a member {shown(name)!r}")
        self._joined = key, done.revision, lease, owns_lease
        return name

    async def say(self, value: Bytes) -> None:
        """Say something else of ourselves. Raises NotHeld, LeaseNotFound when our membership has ended."""
        key, _, lease, _ = self._membership()
        await self._kv.put(key, value, lease=lease.id)

    async def leave(self) -> None:
        """Be there no more. Raises NotHeld."""
        membership = self._membership()
        self._joined = None
        await leave(self._kv, *membership)

    async def members(self) -> list[GroupMember]:
        """Who is there now, in the order in which they came."""
        return self._line(await self._kv.get_prefix(self._prefix))

    async def changes(self) -> AsyncIterator[list[GroupMember]]:
        """Who is there now, and then all of them again after each change."""
        found = await self._kv.range(prefix=self._prefix)
        there = {kv.key: kv for kv in found.kvs}
        yield self._line(list(there.values()))
        async with self._kv.watch(prefix=self._prefix, start_revision=found.revision + 1) as watch:
            async for event in watch:
                there.pop(event.key, None)
                if event.type == "put":
                    there[event.key] = event.kv
                yield self._line(list(there.values()))

    def _membership(self) -> tuple[bytes, Revision, Kept, bool]:
        if self._joined is None:
            raise NotHeld(f"this object is no member of group {shown(self._name)!r}")
        return self._joined

    def _line(self, kvs: list[KeyValue]) -> list[GroupMember]:
        start = len(self._prefix)
        return sorted(
            (GroupMember(kv.key[start:], kv.value, kv.create_revision) for kv in kvs), key=lambda member: member.joined
        )


class Group:
    """Those who are there; made by `kv.group(name)`. One object is for one member, or for one who only looks."""

    def __init__(self, kv: "Client", name: Bytes, *, ttl: float = TTL_S, lease: Any = None) -> None:
        self._group = AsyncGroup(blocking(kv), name, ttl=ttl, lease=lease)

    @property
    def lost(self) -> "threading.Event":
        """Set when our membership is gone, or when nobody can tell any more. Raises NotHeld."""
        return cast("threading.Event", self._group.lost)

    def join(self, value: Bytes = b"", *, member: Bytes = b"") -> bytes:
        """Be there from now on, under a name of our own or a drawn one, which is returned. Raises InvalidRequest when the name is taken."""
        return run(self._group.join(value, member=member))

    def say(self, value: Bytes) -> None:
        """Say something else of ourselves. Raises NotHeld, LeaseNotFound when our membership has ended."""
        run(self._group.say(value))

    def leave(self) -> None:
        """Be there no more. Raises NotHeld."""
        run(self._group.leave())

    def members(self) -> list[GroupMember]:
        """Who is there now, in the order in which they came."""
        return run(self._group.members())

    def changes(self) -> Iterator[list[GroupMember]]:
        """Who is there now, and then all of them again after each change."""
        return iterate(self._group.changes())
