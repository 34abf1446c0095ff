"""Carries calls through the cluster on asyncio: retry.py decides, links.py connects, this file does what was decided.

The hot path is `submit`: while the leader's connection is healthy (`_fast`) a call goes straight onto it, and a Retry is made only when
something goes wrong. Deadlines have no timers of their own: one tick sweeps the tables, at the earliest deadline or a few times
a second, and it runs only while something is outstanding.
"""

import asyncio
from collections import deque
from typing import Any, Coroutine, Final

from raftkv.client import verdict
from raftkv.client.connection import Call, Connection
from raftkv.client.decisions import BARE_WRITE, STALE_LOGINS, WRITE, Decision, Keep, Send, Stop, Wait
from raftkv.client.direct import Direct
from raftkv.client.endpoints import Directory
from raftkv.client.links import Link
from raftkv.client.options import Options, draw, draw_session_id
from raftkv.client.retry import Retry
from raftkv.client.session import Session, Sessions
from raftkv.client.ticker import NEVER, Ticker, split_late
from raftkv.client.wireconn import WireConnection, failure_of
from raftkv.errors import ClientClosed, ClusterMismatch, RaftKVError, SessionExpired
from raftkv.wire.commands import Answer, Command

TICK_S: Final = 0.25
CLOSE_TIMEOUT_S: Final = 1.0


class Dispatcher:
    """All calls of one async client, in one event loop."""

    def __init__(self, directory: Directory, options: Options) -> None:
        self.directory = directory
        self.loop = asyncio.get_running_loop()
        self._options = options
        self._sessions = Sessions(draw_session_id) if options.session else None
        self._time = self.loop.time
        self._create_future = self.loop.create_future
        self._links: dict[str, Link] = {}
        self._fast: Connection | None = None
        """The leader's connection, while nothing speaks against it."""
        self._window_queue: deque[Call] = deque()
        """Writes that wait for room in the session's window."""
        self._waiting: dict[Call, asyncio.TimerHandle] = {}  # calls that back off
        self._tasks: set[asyncio.Task[None]] = set()
        tick_s = min(TICK_S, options.attempt_timeout_s / 4)
        self._ticker = Ticker(self.loop, tick_s, self._sweep_all, self._ask_for_signs)
        self.timeout_s = options.timeout_s  # of a call that does not say
        self._attempt_timeout_s = min(options.attempt_timeout_s, options.timeout_s / 3)
        self._idle_s = options.idle_s
        self._closed = False

    # Calls in.

    def submit(self, command: Command, kind: int, timeout_s: float | None) -> asyncio.Future[Answer]:
        """Start a call. The future ends with the answer or with a RaftKVError; cancelling it disturbs nobody else."""
        now = self._time()
        if timeout_s is None:
            timeout_s, attempt_timeout_s = self.timeout_s, self._attempt_timeout_s
        else:
            attempt_timeout_s = self._options.attempt_s(kind, timeout_s)
        deadline = now + timeout_s
        future: asyncio.Future[Answer] = self._create_future()
        call = Call(command, kind, future, now, deadline, now + attempt_timeout_s if kind < BARE_WRITE else deadline)
        connection = self._fast
        if (
            connection is None
            or not connection.usable
            or (now > connection.heard_at + self._idle_s and not connection.waiters)
        ):
            self._begin(call, now)
        elif kind != WRITE:
            connection.send(call, now)
        else:
            session = connection.wire.session
            assert session is not None, "a WRITE goes to connections that greeted with the session"
            sequence = 0 if self._window_queue else session.open(now)
            if sequence:
                command[1] = call.sequence = sequence
                call.session = session
                connection.send(call, now)
            else:
                self._begin(call, now)
        if call.attempt_deadline < self._ticker.at:
            self._ticker.arm(now, call.attempt_deadline)
        return future

    def ask(self, address: str, command: Command, timeout_s: float | None, kind: int) -> asyncio.Future[Answer]:
        """Like submit, but to this address and nowhere else; STALE_READ or PATIENT_READ."""
        now = self._time()
        timeout_s = self._options.timeout_s if timeout_s is None else timeout_s
        attempt_timeout_s = min(self._options.attempt_timeout_s, timeout_s)
        call = Call(command, kind, self._create_future(), now, now + timeout_s, now + attempt_timeout_s)
        call.retry = Direct(self.directory, address, now, call.deadline, attempt_timeout_s, kind)
        self._begin(call, now)
        self._ticker.arm(now, call.attempt_deadline)
        return call.future

    async def close(self) -> None:
        """Fail what is outstanding, hang up, and leave nothing pending in the loop."""
        if self._closed:
            return
        self._closed = True
        self._fast = None
        self._ticker.stop()
        for timer in self._waiting.values():
            timer.cancel()
        unsent = [*self._waiting, *self._window_queue]
        self._waiting.clear()
        self._window_queue.clear()
        closing: list[asyncio.Future[None]] = []
        for link in self._links.values():
            unsent += link.queue
            link.queue = []
            for connection in link.connections():
                closing.append(connection.closed)
                connection.close()
        for call in unsent:
            self._fail_closed(call)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if closing:
            await asyncio.wait(closing, timeout=CLOSE_TIMEOUT_S)

    # The slow path.

    def _begin(self, call: Call, now: float) -> None:
        if self._closed:
            call.fail(ClientClosed())
            return
        if call.kind == WRITE and self._open(call, now) is None:
            self._window_queue.append(call)
            return
        if call.retry is None:
            call.retry = self._new_retry(call)
        self._execute(call, call.retry.start(now), now)

    def _open(self, call: Call, now: float) -> Session | None:
        """Give the write its sequence, under the session returned. None: it has to wait for the window."""
        sessions = self._sessions
        assert sessions is not None, "a WRITE is a write under a session"
        assert not call.sequence, "a write is opened once"
        if self._window_queue and self._window_queue[0] is not call:
            return None
        if sessions.renew_if_stale(now):
            self._retire_links()
        session = sessions.current
        sequence = session.open(now)
        if not sequence:
            return None
        call.command[1] = call.sequence = sequence
        call.session = session
        return session

    def _new_retry(self, call: Call) -> Retry:
        attempt_timeout_s = self._options.attempt_s(call.kind, call.deadline - call.started_at)
        return Retry(self.directory, call.kind, call.started_at, call.deadline, attempt_timeout_s, draw, call.session)

    def _retry_of(self, call: Call, link: Link) -> Retry:
        """The call's state; made now when its first attempt went without."""
        if call.retry is None:
            call.retry = self._new_retry(call)
            call.retry.adopt(link.address, call.attempt_deadline)
        return call.retry

    def _execute(self, call: Call, decision: Decision, now: float) -> None:
        if self._closed:
            self._fail_closed(call)
        elif call.future.done():
            call.settle()  # its caller gave up: no further attempt
        elif type(decision) is Send:
            if call.kind == WRITE and not self._is_in_session(call, now):
                return
            call.attempt_deadline = decision.attempt_deadline
            link = self._link(decision.address)
            link.submit(call, now)
            self._prefer(link)
            self._ticker.arm(now, call.attempt_deadline)
        elif type(decision) is Wait:
            self._waiting[call] = self.loop.call_at(decision.until, self._on_wait_over, call)
        else:
            assert type(decision) is Stop, "Keep is for an attempt under way"
            call.fail(decision.error)

    def _is_in_session(self, call: Call, now: float) -> bool:
        """Connections greet with the current session, so a write of an older one ends, or begins anew if it surely did not happen."""
        sessions, retry = self._sessions, call.retry
        assert sessions is not None, "a WRITE is a write under a session"
        assert retry is not None, "the slow path has one"
        if call.session is sessions.current:
            return True
        if retry.uncertain:
            call.fail(SessionExpired())
            return False
        call.settle()
        session = self._open(call, now)
        if session is None:
            call.session = None
            call.retry = None
            self._window_queue.append(call)
            return False
        retry.rebind(session)
        return True

    def _on_wait_over(self, call: Call) -> None:
        del self._waiting[call]
        assert call.retry is not None, "the slow path has one"
        now = self._time()
        self._execute(call, call.retry.on_wait_over(now), now)

    def _admit(self) -> None:
        """Writes that waited for the window, in their order, as far as there is room."""
        now = self._time()
        while self._window_queue:
            call = self._window_queue[0]
            if not call.future.done() and self._open(call, now) is None:
                return
            self._window_queue.popleft()
            if not call.future.done():
                call.retry = self._new_retry(call)
                self._execute(call, call.retry.start(now), now)

    # Links.

    def new_wire(self) -> WireConnection:
        """The protocol of a new connection, under the current session."""
        return self._options.new_wire(None if self._sessions is None else self._sessions.current)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that is cancelled and awaited by `close`, and whose error reaches the loop's exception handler."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.loop.call_exception_handler(
                {"message": "raftkv client: a task failed", "exception": task.exception(), "task": task}
            )

    def _link(self, address: str) -> Link:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(address, self, self._options)
        return link

    def _prefer(self, link: Link) -> None:
        """Let the hot path use the leader's connection."""
        connection = link.connection
        if connection is not None and connection.usable and link.member_id == self.directory.leader_id:
            self._fast = connection

    def _unprefer(self, connection: Connection | None) -> None:
        if connection is self._fast:
            self._fast = None

    def _retire_links(self) -> None:
        self._fast = None
        for link in self._links.values():
            link.retire()

    def on_link_ready(self, link: Link, calls: list[Call]) -> None:
        """LinkOwner: a new connection was greeted."""
        connection = link.connection
        assert connection is not None, "a link that is ready has a connection"
        handshake = connection.wire.handshake
        assert handshake is not None, "and was greeted"
        try:
            self.directory.on_handshake(link.address, handshake)
        except ClusterMismatch as error:
            link.retire()
            self.on_link_failed(link, calls, error)
            return
        if self._sessions is not None:
            self._sessions.learn_ttl(handshake.session_ttl_s)
            if connection.wire.session is not self._sessions.current:
                link.queue = calls  # the session changed while the connection was made
                link.retire()
                return
        self.on_link_room(link, calls)

    def on_link_room(self, link: Link, calls: list[Call]) -> None:
        """LinkOwner: the connection takes calls."""
        now = self._time()
        self._prefer(link)
        for call in calls:
            assert call.retry is not None, "the slow path has one"
            self._execute(call, call.retry.on_connected(now), now)

    def on_link_failed(self, link: Link, calls: list[Call], error: RaftKVError) -> None:
        """LinkOwner."""
        now = self._time()
        for call in calls:
            assert call.retry is not None, "the slow path has one"
            self._execute(call, call.retry.on_unreachable(now, error), now)

    def on_link_lost(self, link: Link, calls: list[Call], error: RaftKVError) -> None:
        """LinkOwner."""
        now = self._time()
        if self._fast is not None and self._fast.closed.done():
            self._fast = None
        for call in calls:
            retry = self._retry_of(call, link)
            if self._closed:
                retry.on_abandoned()
            self._execute(call, retry.on_lost(now, error), now)
        if self._window_queue:
            self._admit()

    def on_link_answers(self, link: Link, connection: Connection, failed: list[tuple[Call, Answer]] | None) -> None:
        """LinkOwner."""
        if failed is not None:
            self._on_failures(link, connection, failed)
        if self._window_queue:
            self._admit()

    def _on_failures(self, link: Link, connection: Connection, failed: list[tuple[Call, Answer]]) -> None:
        now = self._time()
        for call, answer in failed:
            error = failure_of(answer)
            if error.code == "session_expired" and self._sessions is not None and call.session is not None:
                self._sessions.expire(call.session)
                self._retire_links()
            retry = self._retry_of(call, link)
            stale = self._options.login is not None and error.code in STALE_LOGINS
            if stale:
                self._unprefer(connection)
                link.retire(connection)
            self._execute(call, retry.on_stale_login(now, error) if stale else retry.on_refused(now, error), now)
        if link.member_id != self.directory.leader_id:
            self._unprefer(connection)

    # Deadlines.

    def _sweep_all(self, now: float) -> float:
        """End what is over; the earliest deadline of what goes on."""
        earliest = NEVER
        for link in list(self._links.values()):
            for connection in link.connections():
                earliest = min(earliest, self._sweep(link, connection, now))
            link.queue, late, queue_earliest = split_late(link.queue, now)
            earliest = min(earliest, queue_earliest)
            self._expire(late, now)
        kept, late, queue_earliest = split_late(list(self._window_queue), now)
        self._window_queue = deque(kept)
        self._expire(late, now)
        if self._window_queue:
            self._admit()
        return min(earliest, queue_earliest)

    def _ask_for_signs(self) -> None:
        """Whoever is waited for may show that it lives before it is judged."""
        for link in self._links.values():
            link.ask_for_signs()

    def _sweep(self, link: Link, connection: Connection, now: float) -> float:
        """End the attempts that are over; the earliest deadline of those that stay."""
        waiters = connection.waiters
        if not waiters:
            return NEVER
        # Asked with every tick, a quarter of an attempt, a member that is there has answered within half of one, also when our calls take long.
        attempt_s = self._options.attempt_timeout_s
        connection.probe_if_silent(now - attempt_s / 8)
        due = [(request_id, call) for request_id, call in waiters.items() if call.attempt_deadline <= now]
        for request_id, call in due:
            retry = self._retry_of(call, link)
            heard = connection.heard_at > max(call.sent_at, now - attempt_s / 2)
            decision: Decision
            if now >= call.deadline:
                retry.on_abandoned()
                decision = retry.on_expired(now)
            else:
                decision = retry.on_silence(now, heard=heard)
            if type(decision) is Keep and not call.future.done():
                call.attempt_deadline = decision.attempt_deadline
                continue
            del waiters[request_id]
            if not heard:
                self._unprefer(connection)
                link.retire(connection)
            self._execute(call, decision, now)
        if connection.draining and not waiters:
            connection.close()
        return min((call.attempt_deadline for call in waiters.values()), default=NEVER)

    def _expire(self, calls: list[Call], now: float) -> None:
        for call in calls:
            if call.retry is not None:
                call.fail(call.retry.on_expired(now).error)
            else:
                assert self._sessions is not None, "only the window holds back what was never started"
                call.fail(verdict.window_full(call.deadline - call.started_at, self._sessions.current.window))

    def _fail_closed(self, call: Call) -> None:
        uncertain = call.retry is not None and call.retry.uncertain
        call.fail(ClientClosed(may_have_happened=uncertain))
