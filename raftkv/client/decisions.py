"""What a call is, and what can be decided about it: the words between retry.py and those who do what it says.

Plain constants and named tuples without behaviour, so that the async and the blocking client, and the tests, can take a decision
apart without knowing how it was made.
"""

from typing import Final, NamedTuple, TypeAlias

from raftkv.errors import RaftKVError

# What a call is.
READ: Final = 0
"""A linearizable read: any member answers it."""
STALE_READ: Final = 1
"""Answered by whoever is asked."""
PATIENT_READ: Final = 2
"""A read whose answer may take as long as its call: a member that shows that it lives is not left."""
WRITE: Final = 3
"""A write under a session: repeated until its outcome is known."""
QUESTION: Final = 4
"""Only the leader can answer it, directly or through another member; harmless to repeat."""
BARE_WRITE: Final = 5
"""A write without a session: repeated only after a refusal."""
CONTROL: Final = 6
"""A request to the leader that is neither in the log nor forwarded."""


STALE_LOGINS: Final = frozenset({"auth_old_revision", "user_empty"})
"""The member wants another login than that of the connection: a client with a user makes a new one."""
REFUSED_LOGINS: Final = frozenset({"auth_failed", "no_password_user"})
"""Another member would say the same."""


class Send(NamedTuple):
    """Send the command to this address; an answer is due until `attempt_deadline`, a connection until `connect_deadline`."""

    address: str
    forward: bool
    """Ask this member to have the leader do it, because the leader cannot be reached from here."""
    connect_deadline: float
    attempt_deadline: float


class Wait(NamedTuple):
    """Do nothing until then, and report `on_wait_over`."""

    until: float


class Keep(NamedTuple):
    """The attempt under way gets time until then."""

    attempt_deadline: float


class Stop(NamedTuple):
    """The call ends with this error."""

    error: RaftKVError


Decision: TypeAlias = Send | Wait | Keep | Stop
