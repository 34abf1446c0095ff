"""Who a call comes from."""

from typing import Final, NamedTuple


class Caller(NamedTuple):
    """A user and the auth revision at which it was authenticated; nobody in particular while auth is off."""

    user: str | None
    auth_revision: int


ANYBODY: Final = Caller(None, 0)
