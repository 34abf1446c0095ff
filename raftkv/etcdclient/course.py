"""One call on its way through an etcd cluster: which attempt comes next, where, for how long, and what its failure means. SANS-IO.

It runs a program (rpcs.py) and answers what that yields. The driver does what `start`, `on_response`, `on_failure` and `on_pause_over` return, until it
is an Answer; errors are raised. `may_have_happened` of an error is the whole call's.
"""

from typing import Any, Callable, NamedTuple, TypeAlias

from raftkv.errors import DeadlineExceeded, NoQuorum, OutcomeUnknown, RaftKVError, Unreachable
from raftkv.etcdclient.failures import Outcome, judge
from raftkv.etcdclient.places import NO_LOGIN, Places
from raftkv.etcdclient.rpcs import AUTHENTICATE, Pause, Program, Rpc
from raftkv.etcdpb import rpc_pb2
from raftkv.wire.commands import Answer

LOGIN_TIMEOUT_S = 10.0
LOGINS_MAX = 3
AT_ATTEMPTS_MAX = 3  # where nobody else would do, and an hour is allowed for the answer


class Uncertain(Exception):
    """Thrown into a program: its call may have been done. `error` is why nobody knows."""

    def __init__(self, error: RaftKVError) -> None:
        super().__init__(error.message)
        self.error = error


class Send(NamedTuple):
    """Make this call, and report what became of it."""

    address: str
    rpc: Rpc
    timeout_s: float
    token: str


class Sleep(NamedTuple):
    """Do nothing for so long, then report on_pause_over."""

    seconds: float


class Done(NamedTuple):
    """The answer."""

    answer: Answer


Step: TypeAlias = Send | Sleep | Done


class Course:
    """One call."""

    __slots__ = (
        "_attempt_s",
        "_deadline",
        "_draw",
        "_failures",
        "_last",
        "_logging_in",
        "_logins",
        "_places",
        "_program",
        "_reached",
        "_rpc",
        "_sent_to",
        "_timeout_s",
        "uncertain",
    )

    def __init__(
        self,
        program: Program,
        places: Places,
        now: float,
        timeout_s: float,
        attempt_s: float,
        draw: Callable[[], float],
    ) -> None:
        self._program = program
        self._places = places
        self._deadline = now + timeout_s
        self._timeout_s = timeout_s
        self._attempt_s = attempt_s
        self._draw = draw
        self._rpc: Rpc | None = None
        self._sent_to = ""
        self._failures = 0
        self._logins = 0
        self._logging_in = False
        self._reached = False
        self._last: dict[str, RaftKVError] = {}
        self.uncertain = False
        """Some attempt of something that is not safe to repeat has no answer."""

    def start(self, now: float) -> Step:
        return self._resume(now, None, None)

    def on_response(self, now: float, response: Any) -> Step:
        """etcd has answered."""
        self._failures = 0
        self._reached = True
        if self._logging_in:
            self._logging_in = False
            self._places.token = response.token
            return self._send(now)
        return self._resume(now, response, None)

    def on_failure(self, now: float, number: int, text: str) -> Step:
        """etcd, or gRPC, has refused or given up."""
        assert self._rpc is not None, "something was sent"
        failure = judge(number, text)
        error = failure.error
        if self._logging_in:
            self._logging_in = False
            if error.code == "auth_not_enabled":
                self._places.token = NO_LOGIN
                return self._send(now)
            if failure.outcome is Outcome.FINAL:
                raise error
            return self._again(now, error)
        if failure.outcome is Outcome.FINAL:
            self._failures = 0
            return self._resume(now, None, error)
        if failure.outcome is Outcome.LOGIN:
            self._logins += 1
            if self._places.login is None or self._logins > LOGINS_MAX:
                return self._resume(now, None, error)
            self._places.token = ""
            return self._send(now)
        if failure.outcome is Outcome.UNCERTAIN and not self._rpc.safe:
            self.uncertain = True
            self._note(error)
            return self._resume(now, None, Uncertain(error))
        return self._again(now, error)

    def on_pause_over(self, now: float) -> Step:
        return self._send(now) if self._rpc is not None else self._resume(now, None, None)

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._program.close()

    def _resume(self, now: float, response: Any, error: BaseException | None) -> Step:
        self._rpc = None
        try:
            step = self._program.send(response) if error is None else self._program.throw(error)
        except StopIteration as ended:
            return Done(ended.value)
        except Uncertain as unknown:
            raise OutcomeUnknown(
                f"the write may have happened: {self._sent_to}: {unknown.error.message} (it cannot be repeated safely)",
                details={"endpoint": self._sent_to},
            ) from None
        if isinstance(step, Pause):
            if now + step.seconds >= self._deadline:
                raise self._expired()
            return Sleep(step.seconds)
        self._rpc = step
        pause_s = self._places.pause_s(self._failures, self._draw())
        return self._send(now) if not pause_s else self._sleep(now, pause_s)

    def _again(self, now: float, error: RaftKVError) -> Step:
        self._note(error)
        assert self._rpc is not None, "it is sent again"
        if self._rpc.at and error.code == "unreachable" and self._failures >= AT_ATTEMPTS_MAX:
            self._program.close()
            raise Unreachable(f"{self._rpc.at}: {error.message}")
        pause_s = self._places.pause_s(self._failures, self._draw())
        return self._send(now) if not pause_s else self._sleep(now, pause_s)

    def _note(self, error: RaftKVError) -> None:
        self._failures += 1
        self._last[self._sent_to] = error
        self._reached = self._reached or error.code != "unreachable"
        self._places.on_failed(self._sent_to)

    def _sleep(self, now: float, seconds: float) -> Step:
        if now + seconds >= self._deadline:
            raise self._expired()
        return Sleep(seconds)

    def _send(self, now: float) -> Step:
        remaining_s = self._deadline - now
        if remaining_s <= 0:
            raise self._expired()
        assert self._rpc is not None, "there is something to send"
        places = self._places
        self._sent_to = self._rpc.at or places.current
        timeout_s = min(self._attempt_s, remaining_s)
        if places.needs_login:
            assert places.login is not None, "it is needed"
            self._logging_in = True
            name, password = places.login
            request = rpc_pb2.AuthenticateRequest(name=name, password=password)
            return Send(self._sent_to, Rpc(AUTHENTICATE, request, True), min(LOGIN_TIMEOUT_S, remaining_s), "")
        return Send(self._sent_to, self._rpc, timeout_s, places.bearer)

    def _expired(self) -> RaftKVError:
        self._program.close()
        seen = ", ".join(f"{address} ({error.message})" for address, error in self._last.items()) or "no answer"
        details = {"endpoints": {address: error.message for address, error in self._last.items()}}
        within = f"within {self._timeout_s:.3g} s"
        if self.uncertain:
            text = f"no answer {within}, the write may have happened: {seen}"
            return DeadlineExceeded(text, details=details, may_have_happened=True)
        if self._last and not self._reached:
            return Unreachable(f"no member could be reached {within}: {seen}", details=details)
        codes = {error.code for error in self._last.values()}
        if "no_quorum" in codes and codes <= {"no_quorum", "unreachable"}:
            return NoQuorum(f"no member had a leader {within}: {seen}", details=details, may_have_happened=False)
        return DeadlineExceeded(f"no answer {within}: {seen}", details=details, may_have_happened=False)
