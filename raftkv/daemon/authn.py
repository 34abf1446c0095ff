"""Who is it? Names and passwords, tokens and client certificates become a Caller here, for every door of a member.

A password is compared beside the loop (comparing.py); a bounded number waits. A refusal is
answered no sooner than after `login_refusal_ms`, and takes as long for a name that does not exist: nobody learns names from times. Before
it is compared, the member makes sure that it knows what was acknowledged; one that is cut off from the others compares with what it
has, because what such a login can read there is as old, and whatever it writes is judged elsewhere.
"""

import asyncio
import logging
from typing import Any, Awaitable, Callable, Final, Protocol, Sequence

from raftkv.daemon.comparing import Comparing
from raftkv.daemon.tokens import Tokens, digest_of, draw_token, index_of
from raftkv.errors import (
    AuthFailed,
    AuthNotEnabled,
    AuthOldRevision,
    InsecurePeers,
    InvalidAuthToken,
    InvalidRequest,
    NoPasswordUser,
    RaftKVError,
)
from raftkv.limits import Limits
from raftkv.replica.groups import ReadGroup, WriteGroup
from raftkv.replica.service import Service
from raftkv.replica.watching import BARRIER
from raftkv.store.store import Store
from raftkv.units import Milliseconds
from raftkv.wire.commands import FAILED, Answer, error_of
from raftkv.wire.identity import AGELESS, ANYBODY, MEMBER_USER, Caller
from raftkv.wire.passwords import PASSWORD_BYTES_MAX, hash_password
from raftkv.wire.users import ISSUE_TOKEN

log = logging.getLogger("raftkv.authn")

NOBODY_S_HASH: Final = "scrypt$14$8$1$bm9ib2R5J3Mgc2FsdCEhIQ==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
"""What the password of a user that does not exist is compared with: as much work, and no password has this key."""

STEP_TIMEOUT_MS: Final[Milliseconds] = 5_000
REFRESH_SECONDS: Final = 1.0
LOOK_AGAIN_SECONDS: Final = 0.01
LOOK_SECONDS_MAX: Final = 2.0
LOOKING_MAX: Final = 1_024

Found = Callable[[Caller | RaftKVError], None]


class StoreHolder(Protocol):
    """Whoever has the member's store, which may be replaced (daemon/storage.py)."""

    store: Store


class Authenticator:
    """One per member. Figures that only grow: `logins`, `logins_refused`, `logins_turned_away`."""

    def __init__(
        self,
        holder: StoreHolder,
        service: Service,
        limits: Limits,
        schedule_pump: Callable[[], None],
        *,
        loop: asyncio.AbstractEventLoop,
        allow_insecure_peers: bool,
    ) -> None:
        self._holder = holder
        self._service = service
        self._limits = limits
        self._schedule_pump = schedule_pump
        self._loop = loop
        self._allow_insecure_peers = allow_insecure_peers
        self.peers_are_secure: Callable[[], bool] = lambda: False
        """Whether members authenticate each other (mutual TLS on the peer port); whoever builds that replaces it."""
        self.tokens = Tokens(lambda: holder.store.auth, loop.time, limits.token_ttl_ms / 1000, limits.tokens_max)
        self._comparing = Comparing(loop, limits.logins_pending_max)
        self._looking = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._refresh_timer: asyncio.TimerHandle | None = None
        self.logins = self.logins_refused = 0

    def start(self) -> None:
        """From here on tokens are taken note of."""
        if self._holder.store.auth.enabled and not (self._allow_insecure_peers or self.peers_are_secure()):
            log.warning(
                "authentication is enabled, and the peer port is open to anybody: give it mutual TLS (docs/auth.md)"
            )
        self._refresh()

    def _refresh(self) -> None:
        self.tokens.refresh()
        self._refresh_timer = self._loop.call_later(REFRESH_SECONDS, self._refresh)

    def close(self) -> None:
        """Nobody is let in any more."""
        if self._refresh_timer is not None:
            self._refresh_timer.cancel()
        for task in self._tasks:
            task.cancel()
        self._comparing.close()

    # Logging in.

    async def log_in(self, name: str, password: str) -> Caller:
        """Raises AuthFailed or NoPasswordUser, slowly; AuthNotEnabled, Overloaded, or why this member cannot tell."""
        started_at = self._loop.time()
        try:
            caller = await self._compare(name, password)
        except (AuthFailed, NoPasswordUser) as error:
            self.logins_refused += 1
            log.warning("login as %.64r was refused: %s", name, error.code)
            await asyncio.sleep(max(0.0, started_at + self._limits.login_refusal_ms / 1000 - self._loop.time()))
            raise
        self.logins += 1
        return caller

    @property
    def logins_turned_away(self) -> int:
        """Because too many waited."""
        return self._comparing.turned_away

    def begin_login(self, name: str, password: str, done: Found) -> None:
        """`log_in` for doors that do not wait: `done` is called once, later."""

        async def run() -> None:
            try:
                found: Caller | RaftKVError = await self.log_in(name, password)
            except RaftKVError as error:
                found = error
            done(found)

        task = self._loop.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    async def authenticate(self, name: str, password: str) -> str:
        """A token for a name and its password, good on every member. Raises as `log_in`."""
        caller = await self.log_in(name, password)
        token = draw_token()
        await self._propose([ISSUE_TOKEN, 0, caller.user, caller.auth_revision, digest_of(token)])
        await self._catch_up()
        return f"{token}.{self._holder.store.applied_index}"

    async def hash_password(self, password: str) -> str:
        """The hash to propose for a new password. Raises InvalidRequest, Overloaded."""
        if len(password.encode(errors="surrogatepass")) > PASSWORD_BYTES_MAX:
            raise InvalidRequest(f"a password has at most {PASSWORD_BYTES_MAX} bytes")
        text: str = await self._comparing.run(lambda: hash_password(password))
        return text

    async def _compare(self, name: str, password: str) -> Caller:
        behind: RaftKVError | None = None
        try:
            await self._catch_up()
        except RaftKVError as error:
            behind = error
        auth = self._holder.store.auth
        if not auth.enabled:
            raise behind or AuthNotEnabled()
        revision = auth.revision
        user = auth.users.get(name)
        text = user.password if user is not None and user.password else NOBODY_S_HASH
        fits = await self._comparing.fits(password, text)
        if user is not None and user.no_password:
            raise behind or NoPasswordUser()
        if user is None or not fits:
            raise behind or AuthFailed()
        if not self._holder.store.auth.is_current(name, revision):
            raise AuthOldRevision("the user was changed while it logged in")
        return Caller(name, revision)

    # Who shows a token or a certificate.

    def caller(self, token: str | None) -> Caller:
        """Whose token this is; nobody's for none, or while authentication is off. Raises InvalidAuthToken."""
        if not token or not self._holder.store.auth.enabled:
            return ANYBODY
        return self.tokens.use(token)

    def look_up(self, token: str | None, found: Found) -> None:
        """As `caller`, but a token that this member may only not have heard of yet is waited for: `found` is called once, mostly at once."""
        try:
            caller = self.caller(token)
        except InvalidAuthToken as error:
            assert token is not None, "no token is no invalid one"
            if index_of(token) <= self._holder.store.applied_index or self._looking >= LOOKING_MAX:
                found(error)
            else:
                self._looking += 1
                self._loop.call_later(LOOK_AGAIN_SECONDS, self._look_again, token, found, self._loop.time())
        else:
            found(caller)

    def _look_again(self, token: str, found: Found, since: float) -> None:
        is_late = self._loop.time() - since > LOOK_SECONDS_MAX
        if index_of(token) > self._holder.store.applied_index and not is_late:
            self._loop.call_later(LOOK_AGAIN_SECONDS, self._look_again, token, found, since)
            return
        self._looking -= 1
        try:
            caller = self.caller(token)
        except InvalidAuthToken as error:
            found(error)
        else:
            found(caller)

    def caller_of_certificate(self, common_name: str) -> Caller:
        """Whoever showed a client certificate of ours in this name, and no token. Whether there is such a user is found out later."""
        return Caller(common_name, AGELESS) if common_name else ANYBODY

    # What may be done with users.

    @property
    def auth_revision(self) -> int:
        """Of the users and roles, as applied here."""
        return self._holder.store.auth.revision

    def check_peers(self) -> None:
        """Raises InsecurePeers: to enable authentication would be a promise that the peer port breaks."""
        if not (self._allow_insecure_peers or self.peers_are_secure()):
            raise InsecurePeers(
                "members do not authenticate each other, so whoever reaches a peer port could write anything: give it"
                " mutual TLS, or set allow_insecure_peers where only members can reach it"
            )

    # Through the service.

    async def _catch_up(self) -> None:
        """Know everything that was acknowledged. Raises RaftKVError."""
        waiting = _Waiting(self._loop)
        deadline_ms = self._service.deadline(STEP_TIMEOUT_MS)
        self._service.submit_reads(ReadGroup(waiting, [0], [BARRIER], deadline_ms=deadline_ms, user=MEMBER_USER))
        self._schedule_pump()
        await waiting.answered

    async def _propose(self, command: list[Any]) -> None:
        waiting = _Waiting(self._loop)
        deadline_ms = self._service.deadline(STEP_TIMEOUT_MS)
        group = WriteGroup(waiting, [0], [command], size_bytes=512, deadline_ms=deadline_ms, user=MEMBER_USER)
        self._service.forward(group)
        self._schedule_pump()
        answer = await waiting.answered
        if answer[0] == FAILED:
            raise error_of(answer)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a login broke", exc_info=error)


class _Waiting:
    """The origin of one command whose answer is awaited."""

    takes_answers = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._answered: asyncio.Future[Answer] = loop.create_future()

    @property
    def answered(self) -> Awaitable[Answer]:
        return self._answered

    def on_answers(self, group: WriteGroup | ReadGroup, answers: Sequence[Answer]) -> None:
        if not self._answered.done():
            self._answered.set_result(answers[0])

    def on_refused(self, group: WriteGroup | ReadGroup, error: RaftKVError) -> None:
        if not self._answered.done():
            self._answered.set_exception(error)


__all__ = ["Authenticator"]
