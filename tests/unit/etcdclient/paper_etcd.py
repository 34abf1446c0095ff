"""An etcd without a network: programs of raftkv.etcdclient run against raftkv's own etcd door in this process, over a line that loses things.

What gets lost is drawn: the request, the answer, or the request arrives later, when its client has long tried again. Time is a number.
"""

import random
from dataclasses import dataclass
from typing import Any, Callable

from raftkv.etcd.methods import BY_PATH
from raftkv.etcd.statuses import Status
from raftkv.etcdclient.course import Course, Done, Send, Sleep, Step
from raftkv.etcdclient.marks import Sessions
from raftkv.etcdclient.places import Places
from raftkv.etcdclient.rpcs import Rpc
from raftkv.etcdclient.writes import write
from raftkv.wire.commands import Command
from tests.differential.twin import Twin

LOST = (14, "Socket closed")


class PaperEtcd:
    """One store, and the requests that are still under way to it."""

    def __init__(self, seed: int, *, losses: float = 0.3) -> None:
        self.random = random.Random(seed)
        self.twin = Twin(1, 0)
        self.late: list[Rpc] = []
        self.now = 0.0
        self._losses = losses

    def do(self, rpc: Rpc) -> Any:
        """The response, or a Status."""
        method = BY_PATH[rpc.path]
        if rpc.streams:
            return [self.twin.call(method, request) for request in rpc.request]
        return self.twin.call(method, rpc.request)

    def send(self, rpc: Rpc) -> Any:
        """What the client hears of it."""
        drawn = self.random.random() / self._losses if self._losses else 1.0
        if drawn < 0.3:
            return Status(*LOST)
        if drawn < 0.6:
            self.late.append(rpc)
            return Status(*LOST)
        answer = self.do(rpc)
        return Status(*LOST) if drawn < 1.0 else answer

    def deliver_late(self) -> None:
        """One of those that are under way arrives."""
        if self.late:
            self.do(self.late.pop(self.random.randrange(len(self.late))))


@dataclass
class Call:
    """A command on its way; `outcome` is its answer or its error."""

    course: Course
    step: Step
    outcome: Any = None


class PaperClient:
    """A client of it; its calls advance when they are told to."""

    def __init__(self, etcd: PaperEtcd, *, session: bool = True) -> None:
        self.etcd = etcd
        self.places = Places(["a:1", "b:1"], None)
        draw_id: Callable[[], int] = lambda: etcd.random.randrange(1, 2**62)  # noqa: E731
        self.sessions = Sessions(lambda: etcd.now, draw_id) if session else None

    def begin(self, command: Command, timeout_s: float = 1e6) -> Call:
        program = write(self.sessions, command, self.etcd.random.random)
        course = Course(program, self.places, self.etcd.now, timeout_s, 1.0, self.etcd.random.random)
        return Call(course, course.start(self.etcd.now))

    def advance(self, call: Call) -> bool:
        """One step of it; whether it has ended."""
        etcd, step = self.etcd, call.step
        etcd.now += 0.001
        try:
            if isinstance(step, Sleep):
                etcd.now += step.seconds
                call.step = call.course.on_pause_over(etcd.now)
            elif isinstance(step, Send):
                heard = etcd.send(step.rpc)
                if isinstance(heard, Status):
                    call.step = call.course.on_failure(etcd.now, heard.number, heard.text)
                else:
                    call.step = call.course.on_response(etcd.now, heard)
        except Exception as error:
            call.outcome = error
            return True
        if isinstance(call.step, Done):
            call.outcome = call.step.answer
            return True
        return False

    def run(self, command: Command, timeout_s: float = 1e6) -> Any:
        """Its answer. Raises what it ends with."""
        call = self.begin(command, timeout_s)
        while not isinstance(call.step, Done) and not self.advance(call):
            pass
        if isinstance(call.outcome, Exception):
            raise call.outcome
        return call.outcome
