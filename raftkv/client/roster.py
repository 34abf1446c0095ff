"""Who is in the cluster, in person: which addresses to ask for their status, and one row per member from the replies. SANS-IO.

The own endpoints are asked first; their greetings name the members, and those that no endpoint led to are asked at their advertised
address. A member that answered under two addresses is one row.
"""

from typing import Any, Final, Mapping

from raftkv.client.endpoints import Directory
from raftkv.errors import RaftKVError
from raftkv.units import NOBODY

UNREACHABLE: Final = "unreachable"

_UNKNOWN: Final[Mapping[str, Any]] = {
    "name": "",
    "id": NOBODY,
    "endpoint": "",
    "role": UNREACHABLE,
    "term": 0,
    "leader": "",
    "commit_index": 0,
    "applied_index": 0,
    "revision": 0,
    "db_size_bytes": 0,
    "version": "",
    "errors": (),
}


class Census:
    """Ask `next_addresses` and `add` the replies until there are none left; then `rows`."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._asked: set[str] = set()
        self._rows: dict[int, dict[str, Any]] = {}
        self._failed: dict[str, RaftKVError] = {}

    def next_addresses(self) -> list[str]:
        """Whom to ask now: own endpoints, then the advertised addresses of members that did not answer."""
        directory = self._directory
        wanted = [address for address in directory.endpoints if address not in self._asked]
        if not wanted:
            wanted = [
                peer.address
                for peer in directory.members.values()
                if peer.id not in self._rows and peer.address and peer.address not in self._asked
            ]
        self._asked.update(wanted)
        return wanted

    def add(self, address: str, reply: Mapping[str, Any] | RaftKVError) -> None:
        """A member's own words, or why there are none."""
        if isinstance(reply, RaftKVError):
            self._failed[address] = reply
            return
        row = {**_UNKNOWN, "errors": [], "endpoint": address, **reply}
        self._rows.setdefault(int(row["id"]), row)

    def rows(self) -> list[dict[str, Any]]:
        """One mapping per member, ordered by name; endpoints that led to nobody come last."""
        directory = self._directory
        missing = [peer for peer in directory.members.values() if peer.id not in self._rows]
        silent = dict(self._failed)
        rows = list(self._rows.values())
        for peer in missing:
            addresses = [a for a in directory.addresses_of(peer.id) if a in silent]
            error = silent[addresses[0]] if addresses else None
            for address in addresses:
                del silent[address]
            rows.append(_unreachable(peer.id, peer.name, addresses[0] if addresses else peer.address, error))
        if len(missing) == 1 and len(silent) == 1:
            # One member and one endpoint are down: it is the same one, under its published address.
            address, error = silent.popitem()
            rows[-1]["endpoint"], rows[-1]["errors"] = address, [error.message]
        rows.sort(key=lambda row: (str(row["name"]), int(row["id"])))
        rows += [
            _unreachable(NOBODY, "", address, error)
            for address, error in silent.items()
            if directory.member_at(address) not in self._rows
        ]
        return rows


def _unreachable(member_id: int, name: str, address: str, error: RaftKVError | None) -> dict[str, Any]:
    errors = ["no address is known" if error is None else error.message]
    return {**_UNKNOWN, "id": member_id, "name": name, "endpoint": address, "errors": errors}
