"""The tokens of those who logged in through a door of etcd, in this member's memory: as etcd's simple tokens, kept by their digests.

The log tells every member of a token when it is issued, so that it is good on all of them; how long it was not used is each member's own
business, and a restart forgets it. Whoever shows one that is not known, or was not used for its time, logs in again.
"""

import secrets
import string
from collections import OrderedDict
from hashlib import blake2b
from typing import Callable, Final

from raftkv.errors import InvalidAuthToken
from raftkv.store.auth import Auth
from raftkv.units import Index
from raftkv.wire.identity import Caller
from raftkv.wire.users import TOKEN_DIGEST_BYTES

LETTERS: Final = 22  # etcd has 16; 22 letters of 52 are 125 bits
TOKEN_CHARACTERS_MAX: Final = 128


def draw_token() -> str:
    """The part of a token that nobody can guess."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(LETTERS))


def digest_of(token: str) -> bytes:
    """What is kept of a token; the index behind its dot is no part of it."""
    letters = token.partition(".")[0].encode(errors="surrogatepass")
    return blake2b(letters, digest_size=TOKEN_DIGEST_BYTES).digest()


def index_of(token: str) -> Index:
    """Where in the log it was known at the latest; 0 for what is no such token."""
    text = token.rpartition(".")[2]
    return int(text) if len(text) < 20 and text.isascii() and text.isdigit() else 0


class Tokens:
    """All that are known here, the one that was not used for longest in front."""

    def __init__(
        self, read_auth: Callable[[], Auth], time: Callable[[], float], ttl_seconds: float, tokens_max: int
    ) -> None:
        self._read_auth = read_auth
        self._time = time
        self._ttl_seconds = ttl_seconds
        self._tokens_max = tokens_max
        self._tokens: OrderedDict[bytes, tuple[Caller, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def use(self, token: str) -> Caller:
        """Whose it is; it lives on for its whole time. Raises InvalidAuthToken."""
        self.refresh()
        auth = self._read_auth()
        digest = digest_of(token) if len(token) <= TOKEN_CHARACTERS_MAX else b""
        known = self._tokens.get(digest)
        if known is None:
            raise InvalidAuthToken()
        caller = known[0]
        assert caller.user is not None, "tokens are issued to users"
        if not auth.is_current(caller.user, caller.auth_revision):
            del self._tokens[digest]
            raise InvalidAuthToken()
        self._keep(digest, caller)
        return caller

    def refresh(self) -> None:
        """Take note of what was issued, and forget what was not used. To be called every now and then, too."""
        now = self._time()
        while self._tokens:
            digest, (_, deadline) = next(iter(self._tokens.items()))
            if deadline > now:
                break
            del self._tokens[digest]
        auth = self._read_auth()
        if auth.issued:
            for issued in auth.take_issued():
                if issued.digest not in self._tokens:
                    self._keep(issued.digest, Caller(issued.user, issued.auth_revision))

    def _keep(self, digest: bytes, caller: Caller) -> None:
        self._tokens[digest] = (caller, self._time() + self._ttl_seconds)
        self._tokens.move_to_end(digest)
        if len(self._tokens) > self._tokens_max:
            self._tokens.popitem(last=False)


__all__ = ["Tokens", "digest_of", "draw_token", "index_of"]
