"""Carries calls through the cluster on blocking sockets: retry.py decides, pool.py connects, this file does what was decided.

Thread-safe: the sessions and the directory change under one lock, which is never held while waiting for a socket. Threads do not share
a connection, they share the session, so exactly-once holds for all of them. A forked child notices and starts afresh.
"""

import os
import threading
from time import monotonic, sleep

from raftkv.client import verdict
from raftkv.client.blockingconn import BlockingConnection, Lost
from raftkv.client.decisions import STALE_LOGINS, WRITE, Decision, Keep, Send, Stop, Wait
from raftkv.client.direct import Direct
from raftkv.client.endpoints import Directory
from raftkv.client.options import Options, draw, draw_session_id
from raftkv.client.pool import Loan, Pool
from raftkv.client.retry import Retry
from raftkv.client.session import Session, Sessions
from raftkv.client.wireconn import WireConnection, failure_of
from raftkv.errors import ClientClosed, ClusterMismatch, DeadlineExceeded, RaftKVError, SessionExpired
from raftkv.wire.commands import OK, Answer, Command


class Caller:
    """All calls of one blocking client, from any thread."""

    def __init__(self, directory: Directory, options: Options, connections_max: int) -> None:
        self.directory = directory
        self._options = options
        self._connections_max = connections_max
        self._sessions = Sessions(draw_session_id) if options.session else None
        self._closed = False
        self._start_process()

    def _start_process(self) -> None:
        self._process_id = os.getpid()
        self._lock = threading.Condition()
        self._pool = Pool(self._options, self._new_wire, connections_max=self._connections_max)

    def call(self, command: Command, kind: int, timeout_s: float | None) -> Answer:
        """Run one call to its end. Raises RaftKVError."""
        if os.getpid() != self._process_id:
            self._on_forked()
        started_at = monotonic()
        timeout_s = self._options.timeout_s if timeout_s is None else timeout_s
        deadline = started_at + timeout_s
        session = self._open(command, deadline, timeout_s) if kind == WRITE else None
        try:
            attempt_timeout_s = self._options.attempt_s(kind, timeout_s)
            retry = Retry(self.directory, kind, started_at, deadline, attempt_timeout_s, draw, session)
            return self._run(retry, command, session)
        finally:
            if session is not None:
                with self._lock:
                    session.settle(command[1])
                    self._lock.notify()

    def ask(self, address: str, command: Command, timeout_s: float | None, kind: int) -> Answer:
        """Like call, but to this address and nowhere else; STALE_READ or PATIENT_READ."""
        if os.getpid() != self._process_id:
            self._on_forked()
        now = monotonic()
        timeout_s = self._options.timeout_s if timeout_s is None else timeout_s
        attempt_timeout_s = min(self._options.attempt_timeout_s, timeout_s)
        retry = Direct(self.directory, address, now, now + timeout_s, attempt_timeout_s, kind)
        return self._run(retry, command, None)

    @property
    def directory_lock(self) -> threading.Condition:
        """Held while the directory is read or changed, never while waiting for a socket."""
        if os.getpid() != self._process_id:
            self._on_forked()  # a thread of the parent may have held it
        return self._lock

    def check_open(self) -> None:
        """Before something begins that `close` would have to end. Raises ClientClosed."""
        if self._closed:
            raise ClientClosed()

    def close(self) -> None:
        """Hang up. Calls of other threads end with ClientClosed."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._pool.close()

    # One call.

    def _open(self, command: Command, deadline: float, timeout_s: float) -> Session:
        """Give the write its sequence, when the session's window has room."""
        sessions = self._sessions
        assert sessions is not None, "a WRITE is a write under a session"
        with self._lock:
            while True:
                if self._closed:
                    raise ClientClosed()
                sessions.renew_if_stale(monotonic())
                session = sessions.current
                command[1] = session.open(monotonic())
                if command[1]:
                    return session
                remaining_s = deadline - monotonic()
                if remaining_s <= 0 or not self._lock.wait(min(remaining_s, threading.TIMEOUT_MAX)):
                    raise verdict.window_full(timeout_s, session.window)

    def _run(self, retry: Retry, command: Command, session: Session | None) -> Answer:
        with self._lock:
            decision = retry.start(monotonic())
        while True:
            if self._closed:
                raise ClientClosed(may_have_happened=retry.uncertain)
            if type(decision) is Stop:
                raise decision.error
            if type(decision) is Wait:
                sleep(max(0.0, decision.until - monotonic()))
                with self._lock:
                    decision = retry.on_wait_over(monotonic())
                continue
            assert type(decision) is Send, "Keep is for an attempt under way"
            if session is not None and session.gone:
                raise SessionExpired(may_have_happened=retry.uncertain)
            outcome = self._attempt(retry, decision, command, session)
            if isinstance(outcome, list):
                return outcome
            decision = outcome

    def _attempt(self, retry: Retry, send: Send, command: Command, session: Session | None) -> Answer | Decision:
        """One attempt: its answer, or what to do instead."""
        wanted = session if session is not None or self._sessions is None else self._sessions.current
        try:
            loan = self._pool.borrow(
                send.address,
                wanted,
                connect_timeout_s=max(0.0, send.connect_deadline - monotonic()),
                deadline=retry.deadline,
            )
        except (DeadlineExceeded, ClientClosed) as error:
            error.may_have_happened = retry.uncertain
            raise
        except RaftKVError as error:
            with self._lock:
                return retry.on_unreachable(monotonic(), error)
        with loan:
            if loan.is_new:
                decision = self._on_connected(retry, loan)
                if type(decision) is not Send or decision.address != send.address:
                    return decision
                send = decision
            if send.forward:
                command = loan.connection.wire.forward(command, session)
            return self._exchange(retry, send, loan, command, session)

    def _on_connected(self, retry: Retry, loan: Loan) -> Decision:
        connection = loan.connection
        handshake = connection.wire.handshake
        assert handshake is not None, "the pool lends greeted connections"
        now = monotonic()
        with self._lock:
            try:
                self.directory.on_handshake(connection.address, handshake)
            except ClusterMismatch as error:
                loan.discard()
                return retry.on_unreachable(now, error)
            if self._sessions is not None:
                self._sessions.learn_ttl(handshake.session_ttl_s)
            return retry.on_connected(now)

    def _exchange(
        self, retry: Retry, send: Send, loan: Loan, command: Command, session: Session | None
    ) -> Answer | Decision:
        connection = loan.connection
        sent_at = monotonic()
        try:
            request_id = connection.send(command, retry.deadline - sent_at, send.attempt_deadline)
            outcome = self._await_answer(retry, connection, request_id, sent_at, send.attempt_deadline)
        except (OSError, Lost) as error:
            loan.discard()
            reason = error.reason if isinstance(error, Lost) else verdict.lost(error)
            with self._lock:
                return retry.on_lost(monotonic(), reason)
        if not isinstance(outcome, list):
            loan.discard()  # whatever it still brings is for nobody
            return outcome
        if outcome[0] != OK:
            return self._on_refused(retry, loan, outcome, session)
        if session is not None:
            session.registered = True
        return outcome

    def _await_answer(
        self, retry: Retry, connection: BlockingConnection, request_id: int, sent_at: float, attempt_deadline: float
    ) -> Answer | Decision:
        """The answer, or what to do after silence; half-way through each attempt it asks for a sign of life."""
        begun_at = sent_at
        while True:
            middle = begun_at + (attempt_deadline - begun_at) / 2
            answer = connection.receive(request_id, middle)
            if answer is None and monotonic() < retry.deadline:
                # A process that stood still has not listened: the member gets its time to show a sign of life all the same.
                attempt_deadline = min(retry.deadline, max(attempt_deadline, monotonic() + (middle - begun_at) / 2))
                connection.probe(attempt_deadline)
                answer = connection.receive(request_id, attempt_deadline)
            if answer is not None:
                return answer
            begun_at = monotonic()
            with self._lock:
                if begun_at >= retry.deadline:
                    retry.on_abandoned()
                    return retry.on_expired(begun_at)
                decision = retry.on_silence(begun_at, heard=connection.heard_at > middle)
            if type(decision) is not Keep:
                return decision
            attempt_deadline = decision.attempt_deadline

    def _on_refused(self, retry: Retry, loan: Loan, answer: Answer, session: Session | None) -> Decision:
        error = failure_of(answer)
        if self._options.login is not None and error.code in STALE_LOGINS:
            loan.discard()
            self._pool.drop_idle()  # they are no younger
            with self._lock:
                return retry.on_stale_login(monotonic(), error)
        with self._lock:
            if error.code == "session_expired" and self._sessions is not None and session is not None:
                self._sessions.expire(session)
            return retry.on_refused(monotonic(), error)

    def _on_forked(self) -> None:
        """A child of os.fork: sequences and sockets of the parent are not its own."""
        self._pool.abandon()
        self._start_process()
        if self._sessions is not None:
            self._sessions.renew()

    def _new_wire(self, session: Session | None) -> WireConnection:
        return self._options.new_wire(session)
