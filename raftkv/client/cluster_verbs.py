"""The verbs of the cluster itself, members, leadership and backups: a mixin for each of the two clients (client.py, sync.py).

Imported by the command line with every verb, so it imports little.
"""

from typing import Any, Awaitable, Callable, Final, Mapping, Sequence, cast

from raftkv.client import requests
from raftkv.client.results import Member, member
from raftkv.wire.commands import Answer, Command
from raftkv.wire.protocol import DEFRAGMENT, MEMBERS, MOVE_LEADER

DEFRAGMENT_TIMEOUT_S: Final = 3600.0  # gigabytes are copied; a member that shows no sign of life is not waited for


class ClusterVerbs:
    """Of the blocking client."""

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _control(self, command: Command, timeout: float | None) -> Answer:
        raise NotImplementedError

    def _ask(self, address: str | None, command: Command, timeout: float | None) -> Answer:
        """Of this member (None: the first endpoint) and nobody else, for as long as it shows that it lives."""
        raise NotImplementedError

    def members(self, *, timeout: float | None = None) -> list[Member]:
        """The members of the cluster, as any member knows them."""
        answer = self._read([MEMBERS], True, timeout)
        return [member(mapping) for mapping in answer[1]]

    def member_add(self, name: str, peer_address: str, *, learner: bool = False, timeout: float | None = None) -> int:
        """Announce a member: whoever starts as `name` with `--join` is it. Returns its id. It gets a vote once it has caught up,
        unless it is to be a `learner`. Raises MembershipRefused, MembershipBusy."""
        command = requests.change_members(add=[(name, peer_address, learner)])
        answer = self._control(command, timeout)
        return int(answer[1]["ids"][name])

    def member_change(
        self,
        *,
        promote: Sequence[str] = (),
        demote: Sequence[str] = (),
        remove: Sequence[str] = (),
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Give learners a vote, take it from voters, remove members, by name and all in one change. `force`: even if the members
        that answer are no quorum afterwards. Raises MembershipRefused, MembershipBusy."""
        command = requests.change_members((), promote, demote, remove, force)
        self._control(command, timeout)

    def member_promote(self, *names: str, timeout: float | None = None) -> None:
        """Give learners a vote. Raises MembershipRefused, with figures while one lags."""
        self.member_change(promote=names, timeout=timeout)

    def member_remove(self, *names: str, force: bool = False, timeout: float | None = None) -> None:
        """Remove members for good: they stop. A leader hands over first. Raises MembershipRefused."""
        self.member_change(remove=names, force=force, timeout=timeout)

    def move_leader(self, name: str = "", *, timeout: float | None = None) -> Mapping[str, Any]:
        """Hand the leadership to a member ("": the best one). Returns the new leader {id, name, address}. Raises TransferRefused."""
        answer = self._control([MOVE_LEADER, name], timeout)
        return cast(Mapping[str, Any], answer[1]["leader"])

    def defragment(self, address: str, *, timeout: float | None = None) -> Mapping[str, Any]:
        """Have the member at `address` write its store anew without free pages, while it serves; who asks meanwhile shares the answer.

        Returns before_bytes, after_bytes and seconds. `timeout` is an hour by default. Raises NoSpace when a second copy does not fit,
        Overloaded when writes outrun the copy or a snapshot is being taken in: the store is what it was.
        """
        answer = self._ask(address, [DEFRAGMENT], DEFRAGMENT_TIMEOUT_S if timeout is None else timeout)
        return cast(Mapping[str, Any], answer[1])

    def backup(self, write: Callable[[bytes], object], *, timeout: float | None = None) -> Mapping[str, Any]:
        """Fetch the data of the member at the client's first endpoint, as of now, piece by piece into `write`.

        Returns its revision, index, size_bytes, checksum (CRC-32 of it all), cluster_id and cluster_name. `timeout` is for one piece,
        and for the making of the copy. Raises Corruption when what came is not what was announced.
        """
        from raftkv.client.backup import Fetch

        fetch = Fetch()
        while fetch.command is not None:
            data = fetch.feed(self._ask(None, fetch.command, timeout))
            if data:
                write(data)
        return fetch.made


class AsyncClusterVerbs:
    """Of the asyncio client."""

    def _read(self, command: Command, stale: bool, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _control(self, command: Command, timeout: float | None) -> Awaitable[Answer]:
        raise NotImplementedError

    def _ask(self, address: str | None, command: Command, timeout: float | None) -> Awaitable[Answer]:
        """Of this member (None: the first endpoint) and nobody else, for as long as it shows that it lives."""
        raise NotImplementedError

    async def members(self, *, timeout: float | None = None) -> list[Member]:
        """The members of the cluster, as any member knows them."""
        answer = await self._read([MEMBERS], True, timeout)
        return [member(mapping) for mapping in answer[1]]

    async def member_add(
        self, name: str, peer_address: str, *, learner: bool = False, timeout: float | None = None
    ) -> int:
        """Announce a member: whoever starts as `name` with `--join` is it. Returns its id. It gets a vote once it has caught up,
        unless it is to be a `learner`. Raises MembershipRefused, MembershipBusy."""
        command = requests.change_members(add=[(name, peer_address, learner)])
        answer = await self._control(command, timeout)
        return int(answer[1]["ids"][name])

    async def member_change(
        self,
        *,
        promote: Sequence[str] = (),
        demote: Sequence[str] = (),
        remove: Sequence[str] = (),
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Give learners a vote, take it from voters, remove members, by name and all in one change. `force`: even if the members
        that answer are no quorum afterwards. Raises MembershipRefused, MembershipBusy."""
        command = requests.change_members((), promote, demote, remove, force)
        await self._control(command, timeout)

    async def member_promote(self, *names: str, timeout: float | None = None) -> None:
        """Give learners a vote. Raises MembershipRefused, with figures while one lags."""
        await self.member_change(promote=names, timeout=timeout)

    async def member_remove(self, *names: str, force: bool = False, timeout: float | None = None) -> None:
        """Remove members for good: they stop. A leader hands over first. Raises MembershipRefused."""
        await self.member_change(remove=names, force=force, timeout=timeout)

    async def move_leader(self, name: str = "", *, timeout: float | None = None) -> Mapping[str, Any]:
        """Hand the leadership to a member ("": the best one). Returns the new leader {id, name, address}. Raises TransferRefused."""
        answer = await self._control([MOVE_LEADER, name], timeout)
        return cast(Mapping[str, Any], answer[1]["leader"])

    async def defragment(self, address: str, *, timeout: float | None = None) -> Mapping[str, Any]:
        """Have the member at `address` write its store anew without free pages, while it serves; who asks meanwhile shares the answer.

        Returns before_bytes, after_bytes and seconds. `timeout` is an hour by default. Raises NoSpace when a second copy does not fit,
        Overloaded when writes outrun the copy or a snapshot is being taken in: the store is what it was.
        """
        answer = await self._ask(address, [DEFRAGMENT], DEFRAGMENT_TIMEOUT_S if timeout is None else timeout)
        return cast(Mapping[str, Any], answer[1])

    async def backup(self, write: Callable[[bytes], object], *, timeout: float | None = None) -> Mapping[str, Any]:
        """Fetch the data of the member at the client's first endpoint, as of now, piece by piece into `write`.

        Returns its revision, index, size_bytes, checksum (CRC-32 of it all), cluster_id and cluster_name. `timeout` is for one piece,
        and for the making of the copy. Raises Corruption when what came is not what was announced.
        """
        from raftkv.client.backup import Fetch

        fetch = Fetch()
        while fetch.command is not None:
            data = fetch.feed(await self._ask(None, fetch.command, timeout))
            if data:
                write(data)
        return fetch.made
