"""What front doors hand over and get back: groups of writes or reads of one connection.

The group, not the request, is the unit on every hop: one object, one callback, one write to the socket. The commands
inside are the very lists that the client sent (wire/commands.py).
"""

from typing import Protocol, Sequence

from raftkv.errors import RaftKVError
from raftkv.units import Milliseconds
from raftkv.wire.commands import Answer, Command, WriteGroupItems


class Origin(Protocol):
    """Where a group came from. Every command is answered once, by either method, from within Replica calls.

    A group of reads may be answered in parts: then each part is a group with the tags and commands that it answers.
    """

    @property
    def takes_answers(self) -> bool:
        """False while answers would only pile up: the reads of such a client wait."""
        ...

    def on_answers(self, group: "WriteGroup | ReadGroup", answers: Sequence[Answer]) -> None:
        """One answer per command, in order."""
        ...

    def on_refused(self, group: "WriteGroup | ReadGroup", error: RaftKVError) -> None:
        """The whole group ended with this error; `may_have_happened` says the rest."""
        ...


class WriteGroup:
    """Writes of one connection that arrived together. `tags` are the origin's own (request ids), aligned with `commands`."""

    __slots__ = (
        "ack_below",
        "auth_revision",
        "commands",
        "deadline_ms",
        "origin",
        "register",
        "session",
        "since_ms",
        "size_bytes",
        "tags",
        "user",
    )

    def __init__(
        self,
        origin: Origin,
        tags: list[int],
        commands: list[Command],
        *,
        size_bytes: int,
        deadline_ms: Milliseconds,
        session: bytes | None = None,
        register: bool = False,
        ack_below: int = 0,
        user: str | None = None,
        auth_revision: int = 0,
    ) -> None:
        assert len(tags) == len(commands) > 0, "every command has a tag"
        self.origin = origin
        self.tags = tags
        self.commands = commands
        self.size_bytes = size_bytes
        self.deadline_ms = deadline_ms
        self.session = session
        self.register = register
        self.ack_below = ack_below
        self.user = user
        self.auth_revision = auth_revision
        self.since_ms: Milliseconds = 0  # when it came into the leader's queue

    def items(self) -> WriteGroupItems:
        """As it stands in a log entry and in a forward."""
        return [self.session, self.register, self.ack_below, self.user, self.auth_revision, self.commands]


class ReadGroup:
    """Linearizable reads of one connection that arrived together."""

    __slots__ = ("auth_revision", "commands", "deadline_ms", "origin", "tags", "user")

    def __init__(
        self,
        origin: Origin,
        tags: list[int],
        commands: list[Command],
        *,
        deadline_ms: Milliseconds,
        user: str | None = None,
        auth_revision: int = 0,
    ) -> None:
        assert len(tags) == len(commands) > 0, "every command has a tag"
        self.origin = origin
        self.tags = tags
        self.commands = commands
        self.deadline_ms = deadline_ms
        self.user = user
        self.auth_revision = auth_revision

    def part(self, start: int, end: int | None) -> "ReadGroup":
        """Some of its reads, as a group of their own."""
        return ReadGroup(
            self.origin,
            self.tags[start:end],
            self.commands[start:end],
            deadline_ms=self.deadline_ms,
            user=self.user,
            auth_revision=self.auth_revision,
        )
