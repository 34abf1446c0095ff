"""Where the calls of one client go: to one member for as long as it answers, then to the next. Shared by all calls, and by threads."""

from typing import Final, Sequence

BACKOFF_S_MIN: Final = 0.02
BACKOFF_S_MAX: Final = 0.5
NO_LOGIN: Final = "-"


class Places:
    """The endpoints, and the token of the login, which is good at all of them."""

    __slots__ = ("_position", "addresses", "login", "token")

    def __init__(self, addresses: Sequence[str], login: tuple[str, str] | None) -> None:
        self.addresses = tuple(addresses)
        self.login = login
        self.token = ""
        """Empty: not logged in yet. NO_LOGIN: nobody has to."""
        self._position = 0

    @property
    def current(self) -> str:
        return self.addresses[self._position]

    def on_failed(self, address: str) -> None:
        """Others of this client that were sent elsewhere since are not sent back."""
        if address == self.current:
            self._position = (self._position + 1) % len(self.addresses)

    def pause_s(self, failures: int, drawn: float) -> float:
        """Before the next attempt: nothing as long as there is somebody who was not asked, then longer each round."""
        rounds = failures // len(self.addresses)
        if not rounds:
            return 0.0
        ceiling_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2.0 ** min(rounds, 8))
        return ceiling_s * (0.5 + drawn / 2)

    @property
    def bearer(self) -> str:
        """What goes along with a call: the token; empty when there is none."""
        return "" if self.token == NO_LOGIN else self.token

    @property
    def needs_login(self) -> bool:
        return self.login is not None and not self.token
