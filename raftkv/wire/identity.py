"""Who a request comes from, as doors hand it over, members forward it, and the log keeps it."""

from typing import Final, NamedTuple


class Caller(NamedTuple):
    """A user, and the auth revision at which it was authenticated; nobody in particular while auth is off."""

    user: str | None
    auth_revision: int


ANYBODY: Final = Caller(None, 0)

AGELESS: Final = 1 << 62
"""As the auth revision of a caller: a certificate does not end with the user's password. Above all that are ever reached."""

MEMBER_USER: Final = ""
"""A member itself, for the few client commands that members propose (compaction). No door hands it out: names of users are not empty."""
