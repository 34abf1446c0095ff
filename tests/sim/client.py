"""One client: the twin of client/dispatch.py, with the real Retry, Sessions and Directory deciding.

Calls go over one connection per address, in bursts with the session's notice in front, as WireConnection sends them. Deadlines
are swept, not timed one by one. A client has `pipelined` calls under way; its workload (workload.py) says what they ask.
"""

from typing import TYPE_CHECKING, Any, Callable

from raftkv.client import verdict
from raftkv.client.decisions import BARE_WRITE, WRITE, Decision, Keep, Send, Stop, Wait
from raftkv.client.endpoints import Directory
from raftkv.client.retry import Retry, default_attempt_timeout_s
from raftkv.client.session import Session, Sessions
from raftkv.client.wireconn import failure_of, parse_handshake, timeout_ms
from raftkv.errors import ClusterMismatch, RaftKVError, SessionExpired
from raftkv.wire.commands import OK, Answer, Command
from raftkv.wire.protocol import FORWARD, PING

from .door import Connection, Request

if TYPE_CHECKING:
    from .network import Place
    from .world import World

DEFAULT_TTL_S = 600.0
Done = Callable[[Answer | None, RaftKVError | None], None]


class Call:
    """One request of a caller, over all its attempts."""

    __slots__ = (
        "attempt_deadline",
        "command",
        "deadline",
        "done",
        "kind",
        "retry",
        "sent_at",
        "sequence",
        "session",
        "started_at",
    )

    def __init__(self, command: Command, kind: int, now: float, deadline: float, done: Done) -> None:
        self.command = command
        self.kind = kind
        self.started_at = now
        self.sent_at = now
        self.deadline = deadline
        self.attempt_deadline = deadline
        self.done = done
        self.retry: Retry | None = None
        self.session: Session | None = None
        self.sequence = 0

    def settle(self) -> None:
        """It will never be sent again."""
        if self.sequence and self.session is not None:
            self.session.settle(self.sequence)
            self.sequence = 0


class Link:
    """A connection to one address, and what waits on it."""

    __slots__ = (
        "address",
        "connect_deadline",
        "connection",
        "greeted",
        "heard_at",
        "out",
        "queue",
        "session",
        "waiters",
    )

    def __init__(self, address: str, connection: Connection) -> None:
        self.address = address
        self.connection = connection
        self.session: Session | None = None
        self.connect_deadline = 0.0
        self.greeted = False
        self.heard_at = 0.0
        self.out: list[Request] = []  # of this instant
        self.queue: list[Call] = []  # until it is greeted
        self.waiters: dict[int, Call] = {}  # by request id, in the order of sending


class SimClient:
    """A client of the library, as far as it is sans-IO."""

    def __init__(self, world: "World", place: "Place") -> None:
        knobs = world.knobs
        self.world = world
        self.place = place
        self.gone = False
        self._random = world.stream(f"client {place}")
        endpoints = list(world.endpoints_now())
        self._random.shuffle(endpoints)
        self.directory = Directory(endpoints)
        self._sessions = Sessions(
            lambda: self._random.randbytes(16), window=knobs.limits.session_window, ttl_s=DEFAULT_TTL_S
        )
        self._links: dict[str, Link] = {}
        self._window_queue: list[Call] = []
        self._draining: list[Link] = []
        self._last_id = 1
        self._timeout_s = knobs.call_timeout_s
        self._attempt_timeout_s = default_attempt_timeout_s(knobs.call_timeout_s)
        self._sweep_at_us = -1

    # Calls in.

    def submit(self, command: Command, kind: int, done: Done) -> None:
        """Start a call; `done` gets the answer or the error it ends with."""
        now = self._now()
        call = Call(command, kind, now, now + self._timeout_s, done)
        self._begin(call, now)
        self._after()

    def vanish(self) -> None:
        """The client's process dies: nobody will learn what becomes of its calls."""
        self.gone = True
        for link in self._all_links():
            link.connection.close()

    def _now(self) -> float:
        return self.world.now_us / 1e6

    def _begin(self, call: Call, now: float) -> None:
        if call.kind == WRITE and self._open(call, now) is None:
            self._window_queue.append(call)
            return
        if call.retry is None:
            call.retry = self._new_retry(call)
        self._execute(call, call.retry.start(now), now)

    def _open(self, call: Call, now: float) -> Session | None:
        """As Dispatcher._open."""
        assert not call.sequence, "a write is opened once"
        if self._window_queue and self._window_queue[0] is not call:
            return None
        if self._sessions.renew_if_stale(now):
            self._retire_all()
        session = self._sessions.current
        sequence = session.open(now)
        if not sequence:
            return None
        call.command[1] = call.sequence = sequence
        call.session = session
        return session

    def _new_retry(self, call: Call) -> Retry:
        attempt_timeout_s = min(self._attempt_timeout_s, (call.deadline - call.started_at) / 3)
        return Retry(
            self.directory,
            call.kind,
            call.started_at,
            call.deadline,
            attempt_timeout_s,
            self._random.random,
            call.session,
        )

    def _execute(self, call: Call, decision: Decision, now: float) -> None:
        if self.gone:
            return
        if type(decision) is Send:
            if call.kind == WRITE and not self._is_in_session(call, now):
                return
            call.attempt_deadline = decision.attempt_deadline
            self._submit(decision.address, call, now)
        elif type(decision) is Wait:
            self.world.push(int(decision.until * 1e6), self._on_wait_over, (call,))
        else:
            assert type(decision) is Stop, "Keep is for an attempt under way"
            self._fail(call, decision.error)

    def _is_in_session(self, call: Call, now: float) -> bool:
        """As Dispatcher._is_in_session."""
        assert call.retry is not None, "a call that is sent has one"
        if call.session is self._sessions.current:
            return True
        if call.retry.uncertain:
            self._fail(call, SessionExpired())
            return False
        call.settle()
        session = self._open(call, now)
        if session is None:
            call.session = None
            call.retry = None
            self._window_queue.append(call)
            return False
        call.retry.rebind(session)
        return True

    def _on_wait_over(self, call: Call) -> None:
        assert call.retry is not None, "the call waits because of it"
        if not self.gone:
            now = self._now()
            self._execute(call, call.retry.on_wait_over(now), now)
            self._after()

    def _finish(self, call: Call, answer: Answer) -> None:
        if call.session is not None:
            call.session.registered = True
        call.settle()
        call.done(answer, None)

    def _fail(self, call: Call, error: RaftKVError) -> None:
        call.settle()
        call.done(None, error)

    def _admit(self) -> None:
        now = self._now()
        while self._window_queue:
            call = self._window_queue[0]
            if self._open(call, now) is None:
                return
            self._window_queue.pop(0)
            call.retry = self._new_retry(call)
            self._execute(call, call.retry.start(now), now)

    # Links.

    def _submit(self, address: str, call: Call, now: float) -> None:
        link = self._links.get(address)
        if link is None:
            link = Link(address, Connection(self, self.world.machine_at(address), self._sessions.current.id))
            link.session = self._sessions.current
            link.connect_deadline = now + self._attempt_timeout_s / 2
            self._links[address] = link
            link.connection.connect()
        if not link.greeted:
            link.queue.append(call)
            return
        command = call.command
        current = _retry_of(call).current
        if current is not None and current.forward:
            command = self._forwarded(call)
        self._last_id += 1
        call.sent_at = now
        link.waiters[self._last_id] = call
        link.out.append((self._last_id, timeout_ms(call.deadline - now), list(command)))

    @staticmethod
    def _forwarded(call: Call) -> Command:
        session = call.session
        if session is None:
            return [FORWARD, None, False, 0, call.command]
        return [FORWARD, session.id, not session.registered, session.ack_below, list(call.command)]

    def _flush(self) -> None:
        """What this instant brought leaves in one packet per connection, with the notice in front."""
        for link in self._links.values():
            if link.out:
                requests, link.out = link.out, []
                self._send(link, requests)

    @staticmethod
    def _send(link: Link, requests: list[Request]) -> None:
        assert link.session is not None, "connections greet with a session"
        link.connection.send(link.session.ack_below, not link.session.registered, requests)

    def _retire_all(self) -> None:
        """The session changed, and connections greet with it: new ones are needed."""
        for address in list(self._links):
            self._retire(address)

    def _retire(self, address: str) -> None:
        """Take no more calls on this connection; what was sent on it may still be answered. What waited for it goes to a new one."""
        link = self._links.pop(address)
        queued, link.queue = link.queue, []
        if link.waiters:
            self._draining.append(link)
        else:
            link.connection.close()
        now = self._now()
        for call in queued:
            self._submit(address, call, now)

    def _lose(self, link: Link, error: RaftKVError) -> None:
        """The connection is gone, or never came to be."""
        link.connection.close()
        if self._links.get(link.address) is link:
            del self._links[link.address]
        elif link in self._draining:
            self._draining.remove(link)
        queued, link.queue = link.queue, []
        sent, link.waiters = list(link.waiters.values()), {}
        now = self._now()
        for call in sent:
            self._execute(call, _retry_of(call).on_lost(now, error), now)
        for call in queued:
            self._execute(call, _retry_of(call).on_unreachable(now, error), now)
        if self._window_queue:
            self._admit()

    def _all_links(self) -> list[Link]:
        return [*self._links.values(), *self._draining]

    def _link_of(self, connection: Connection) -> Link | None:
        return next((link for link in self._all_links() if link.connection is connection), None)

    # What connections bring.

    def on_greeted(self, connection: Connection, hello: dict[str, Any]) -> None:
        """The member's greeting."""
        link = self._link_of(connection)
        if link is None or self.gone:
            return
        now = self._now()
        link.greeted, link.heard_at = True, now
        handshake = parse_handshake(hello)
        try:
            self.directory.on_handshake(link.address, handshake)
        except ClusterMismatch as error:
            self._lose(link, error)
        else:
            self._sessions.learn_ttl(handshake.session_ttl_s)
            calls, link.queue = link.queue, []
            for call in calls:
                self._execute(call, _retry_of(call).on_connected(now), now)
        self._after()

    def on_answers(self, connection: Connection, answers: list[tuple[int, Answer]]) -> None:
        """One packet of answers."""
        link = self._link_of(connection)
        if link is None or self.gone:
            return
        now = self._now()
        link.heard_at = now
        for request_id, answer in answers:
            call = link.waiters.pop(request_id, None)
            if call is None:
                continue
            if answer[0] == OK:
                self._finish(call, answer)
            else:
                self._on_refused(call, failure_of(answer), now)
        if self._window_queue:
            self._admit()
        self._after()

    def _on_refused(self, call: Call, error: RaftKVError, now: float) -> None:
        if error.code == "session_expired" and call.session is not None:
            self._sessions.expire(call.session)
            self._retire_all()
        self._execute(call, _retry_of(call).on_refused(now, error), now)

    def on_reset(self, connection: Connection) -> None:
        """Nobody is there, or not any more."""
        link = self._link_of(connection)
        if link is not None and not self.gone:
            self._lose(link, verdict.lost("reset"))
            self._after()

    def _after(self) -> None:
        self._flush()
        self._arm()

    # Deadlines.

    def _arm(self) -> None:
        """Sweep a few times per attempt, while something is under way."""
        if self.gone:
            return
        deadlines = [call.deadline for call in self._window_queue]
        for link in self._all_links():
            deadlines += [call.attempt_deadline for call in link.waiters.values()]
            deadlines += [min(call.deadline, link.connect_deadline) for call in link.queue]
        if not deadlines:
            return
        sweep_at_us = min(int(min(deadlines) * 1e6) + 1, self.world.now_us + int(self._attempt_timeout_s * 250_000))
        if not self.world.now_us < self._sweep_at_us <= sweep_at_us:
            self._sweep_at_us = sweep_at_us
            self.world.push(sweep_at_us, self._sweep, (sweep_at_us,))

    def _sweep(self, at_us: int) -> None:
        if self.gone or at_us != self._sweep_at_us:
            return  # another one was needed earlier
        now = self._now()
        for link in self._all_links():
            self._sweep_link(link, now)
        late = [call for call in self._window_queue if call.deadline <= now]
        self._window_queue = [call for call in self._window_queue if call.deadline > now]
        for call in late:
            self._fail(call, verdict.window_full(call.deadline - call.started_at, self._sessions.current.window))
        if self._window_queue:
            self._admit()
        self._after()

    def _sweep_link(self, link: Link, now: float) -> None:
        """As Dispatcher._sweep."""
        for call in [call for call in link.queue if call.deadline <= now]:
            link.queue.remove(call)
            self._fail(call, _retry_of(call).on_expired(now).error)
        if not link.greeted:
            if link.queue and now >= link.connect_deadline:
                self._lose(link, verdict.not_connected("timed out"))
            return
        waiters = link.waiters
        if not waiters:
            return
        attempt_s = self._attempt_timeout_s
        if max(link.heard_at, next(iter(waiters.values())).sent_at) <= now - attempt_s / 4:
            self._last_id += 1
            self._send(link, [(self._last_id, 1_000, [PING])])
        for number, call in [(number, call) for number, call in waiters.items() if call.attempt_deadline <= now]:
            heard = link.heard_at > max(call.sent_at, now - attempt_s / 2)
            decision: Decision
            if now >= call.deadline:
                _retry_of(call).on_abandoned()
                decision = _retry_of(call).on_expired(now)
            else:
                decision = _retry_of(call).on_silence(now, heard=heard)
            if type(decision) is Keep:
                call.attempt_deadline = decision.attempt_deadline
                continue
            del waiters[number]
            if not heard and self._links.get(link.address) is link:
                self._retire(link.address)
            self._execute(call, decision, now)
        if link in self._draining and not waiters:
            self._draining.remove(link)
            link.connection.close()


def _retry_of(call: Call) -> Retry:
    assert call.retry is not None, "a call that is under way has one"
    return call.retry


__all__ = ["BARE_WRITE", "SimClient"]
