"""A read like that of a client, to see whether one would be answered; and what came of such looks so far."""

import asyncio
from typing import Callable, Final, Sequence

from raftkv.errors import RaftKVError
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.service import Service
from raftkv.wire.commands import FAILED, GET, SERIALIZABLE, Answer, error_of
from raftkv.wire.identity import MEMBER_USER

TIMEOUT_MS: Final = 5_000
_NO_KEY_IN_PARTICULAR: Final = b"\0"


async def read(service: Service, schedule_pump: Callable[[], None], *, serializable: bool) -> None:
    """Raises RaftKVError with what a client would be told."""
    probe = _Probe()
    command = [GET, SERIALIZABLE if serializable else 0, _NO_KEY_IN_PARTICULAR]
    group = ReadGroup(probe, [0], [command], deadline_ms=service.deadline(TIMEOUT_MS), user=MEMBER_USER)
    if serializable:
        service.read_now(group)
    else:
        service.submit_reads(group)
        schedule_pump()
    answer = await probe.answered
    if answer[0] == FAILED:
        raise error_of(answer)


class _Probe:
    """The origin of that read."""

    takes_answers = True

    def __init__(self) -> None:
        self.answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        if not self.answered.done():
            self.answered.set_result(answers[0])

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


class Looks:
    """What health checks have found, for /metrics. Both kinds of check have a fixed set of names."""

    def __init__(self) -> None:
        self.healthy = 0  # answers of /health
        self.unhealthy = 0
        self.results: dict[tuple[str, str], bool] = {}  # the last one by kind and name
        self.counts: dict[tuple[str, str, bool], int] = {}  # by kind, name and result

    def note(self, kind: str, name: str, good: bool) -> None:
        self.results[kind, name] = good
        self.counts[kind, name, good] = self.counts.get((kind, name, good), 0) + 1
