"""The next version of raftkv, as far as a cluster notices: it says so, and knows a write that this one does not.

NEXT_PUT is a PUT under a number of its own.
"""

import sys
from typing import Any, Final

import raftkv
from raftkv.store import apply
from raftkv.wire import commands, validate, versions
from raftkv.wire.versions import read_version

VERSION: Final = "RAFTKV_JEPSEN_VERSION"
NEXT_PUT: Final = 31


def become(text: str) -> None:
    """Must come before a service is made."""
    version = read_version(text)
    assert version is not None, "a version has a number"
    raftkv.__version__ = text
    writes = commands.CLIENT_WRITES
    for name, module in list(sys.modules.items()):
        if name.startswith("raftkv") and getattr(module, "CLIENT_WRITES", None) is writes:
            module.CLIENT_WRITES = writes | {NEXT_PUT}  # type: ignore[attr-defined]
    versions.SINCE[NEXT_PUT] = version
    apply._HANDLERS[NEXT_PUT] = lambda state, command: apply._put(state, as_put(command))
    check = validate._CHECKS[commands.PUT]
    validate._CHECKS[NEXT_PUT] = lambda command, bounds: check(as_put(command), bounds)


def as_put(command: Any) -> list[Any]:
    return [commands.PUT, *command[1:]]
