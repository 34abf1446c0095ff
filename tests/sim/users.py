"""Worlds in which everybody has to log in: an administrator enables authentication and goes on changing users and roles, under all faults.

All clients are the user root, as if by a certificate, and their work has to go on as ever; so has what members do by themselves. One is eve,
who may do nothing: once anybody was told that authentication is on, no request of hers may ever be answered with more than a refusal.
"""

from random import Random
from typing import TYPE_CHECKING, Any, Final

from raftkv.client import requests
from raftkv.client.decisions import READ, STALE_READ, WRITE
from raftkv.errors import RaftKVError
from raftkv.wire.commands import Answer, Command
from raftkv.wire.identity import AGELESS, Caller
from raftkv.wire.protocol import FORWARD
from raftkv.wire.users import (
    AUTH_ENABLE,
    AUTH_LIST,
    READWRITE,
    ROLE_ADD,
    ROLE_DELETE,
    ROLE_GRANT_PERMISSION,
    ROLE_REVOKE_PERMISSION,
    USER_ADD,
    USER_DELETE,
    USER_GRANT_ROLE,
    USER_REVOKE_ROLE,
)

from .client import SimClient

if TYPE_CHECKING:
    from .world import World

FIRST_PLACE: Final = 4000
PAUSE_US: Final = 60_000
ROOT: Final = Caller("root", AGELESS)
EVE: Final = Caller("eve", AGELESS)
BEGINNING: Final[tuple[Command, ...]] = (
    [USER_ADD, 0, "root", "", True],
    [USER_GRANT_ROLE, 0, "root", "root"],
    [USER_ADD, 0, "eve", "", True],
    [AUTH_ENABLE, 0],
)


class UserWork:
    """The administrator and eve."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.stream("users")
        self._manager = SimClient(world, FIRST_PLACE)
        self._eve = SimClient(world, FIRST_PLACE + 1)
        self._next = 0
        self.is_on = False
        self.managed = self.refused = 0
        self.resting = False

    @property
    def clients(self) -> list[SimClient]:
        return [self._manager, self._eve]

    def start(self) -> None:
        self._manage()

    # The administrator.

    def _manage(self) -> None:
        if self.resting:
            return
        command = BEGINNING[self._next] if self._next < len(BEGINNING) else _management(self._random)

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            self._world.tell(f"the administrator: {command} {answer or repr(error)}")
            certain = error is None or not error.may_have_happened
            if self._next < len(BEGINNING) and certain and (error is None or error.code == "user_exists"):
                self._next += 1
                if self._next == len(BEGINNING):
                    self.is_on = True
                    self._intrude()
            self.managed += error is None
            self._world.after(int(self._random.expovariate(1 / PAUSE_US)) + 1, self._manage)

        self._manager.submit(list(command), WRITE, done)

    # Eve.

    def _intrude(self) -> None:
        if self.resting:
            return
        key = self._world.keys.draw(self._random)
        command, kind = self._random.choice(_INTRUSIONS)(key)

        def done(answer: Answer | None, error: RaftKVError | None) -> None:
            if answer is not None:
                self._world.checks.violate(f"eve was answered {answer} to {command}, who may do nothing")
            assert error is not None, "a call ends with an answer or an error"
            self.refused += error.code == "permission_denied"
            self._world.after(int(self._random.expovariate(1 / PAUSE_US)) + 1, self._intrude)

        self._eve.submit(command, kind, done)


def caller_of(place: int) -> Caller:
    """Who the client at a place is."""
    return EVE if place == FIRST_PLACE + 1 else ROOT


def _management(random: Random) -> Command:
    name, role = random.choice(("ann", "bob", "zoe")), random.choice(("r", "s"))
    key, end = random.choice((b"a", b"n", b"r")), random.choice((b"", b"z", b"\0"))
    commands: list[list[Any]] = [
        [USER_ADD, 0, name, "", True],
        [USER_DELETE, 0, name],
        [USER_GRANT_ROLE, 0, name, role],
        [USER_REVOKE_ROLE, 0, name, role],
        [ROLE_ADD, 0, role],
        [ROLE_DELETE, 0, role],
        [ROLE_GRANT_PERMISSION, 0, role, READWRITE, key, end],
        [ROLE_REVOKE_PERMISSION, 0, role, key, end],
    ]
    return random.choice(commands)


_INTRUSIONS: Final[tuple[Any, ...]] = (
    lambda key: (requests.put(key, b"eve"), WRITE),
    lambda key: (requests.increment(key), WRITE),
    lambda key: (requests.delete_prefix(b""), WRITE),
    lambda key: (requests.compare_and_set(key, None, b"eve"), WRITE),
    lambda key: ([USER_GRANT_ROLE, 0, "eve", "root"], WRITE),
    lambda key: (requests.get(key), READ),
    lambda key: (requests.range_(prefix=b""), READ),
    lambda key: ([AUTH_LIST, 0, 0], READ),
    lambda key: ([FORWARD, None, False, 0, requests.put(key, b"eve")], STALE_READ),  # through whoever is asked
)
