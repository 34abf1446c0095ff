"""An origin that writes down how its groups ended."""

from collections.abc import Sequence

from raftkv.errors import RaftKVError
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.wire.commands import GET, PUT, Answer


class RecordingOrigin:
    def __init__(self) -> None:
        self.answers: list[list[Answer]] = []
        self.errors: list[RaftKVError] = []
        self.takes_answers = True

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        self.answers.append(list(answers))

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        self.errors.append(error)

    @property
    def ends(self) -> int:
        return len(self.answers) + len(self.errors)


def put_group(
    origin: RecordingOrigin,
    *keys: str,
    deadline_ms: int = 1_000_000,
    size_bytes: int = 100,
    session: bytes | None = None,
) -> WriteGroup:
    commands = [[PUT, 0, key.encode(), b"v", 0, 0] for key in keys]
    tags = list(range(1, len(keys) + 1))
    return WriteGroup(origin, tags, commands, size_bytes=size_bytes, deadline_ms=deadline_ms, session=session)


def get_group(origin: RecordingOrigin, *keys: str, deadline_ms: int = 1_000_000) -> ReadGroup:
    commands = [[GET, 0, key.encode()] for key in keys]
    return ReadGroup(origin, list(range(1, len(keys) + 1)), commands, deadline_ms=deadline_ms)
