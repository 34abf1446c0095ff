"""Which version of raftkv brought which write: what a cluster of mixed versions may have in its log.

An entry that a member cannot carry out would leave its store behind those of the others. So the leader takes a write only when every
member knows it (replica/versions.py), and a member that meets one that it does not know stops (store/apply.py). A new command gets a row here with
the version that it appears in; what an existing command may hold never grows: that is a new command, or a new BATCH_VERSION.
"""

import re
from typing import Final, TypeAlias

from raftkv.wire.commands import CLIENT_WRITES, SYSTEM_WRITES

Version: TypeAlias = tuple[int, int, int]

FIRST_RELEASE: Final[Version] = (0, 1, 0)

SINCE: Final[dict[int, Version]] = {
    # 0.1.0: data, leases, sessions, members, alarms, pools, users and roles.
    **dict.fromkeys((*range(1, 14), *range(16, 28), *range(32, 42), 48), FIRST_RELEASE),
}

_NUMBERS: Final = re.compile(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?")


def read_version(text: str) -> Version | None:
    """Of what a member says of itself; None when it has not said anything. What is no version is older than all."""
    if not text:
        return None
    found = _NUMBERS.match(text)
    return (0, 0, 0) if found is None else (int(found[1]), int(found[2] or 0), int(found[3] or 0))


def show_version(version: Version) -> str:
    return ".".join(map(str, version))


assert SINCE.keys() == CLIENT_WRITES | SYSTEM_WRITES, "every write has a version, and nothing else"

__all__ = ["FIRST_RELEASE", "SINCE", "Version", "read_version", "show_version"]
