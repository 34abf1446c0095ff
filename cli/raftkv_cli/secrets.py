"""Passwords on the command line: asked for on the terminal, so that none has to stand in a shell's history or in `ps`."""

import sys

from raftkv_cli.spec import UsageError

TERMINAL = "/dev/tty"


def ask_password(user: str) -> str:
    """The password of who runs this, from the terminal: standard input may be a value. Raises UsageError without a terminal."""
    try:
        with open(TERMINAL, "rb"):
            pass
    except OSError:
        raise UsageError(
            f"no password for user {user}: give --user {user}:PASSWORD, --password or RAFTKV_PASSWORD"
        ) from None
    from getpass import getpass

    return getpass(f"Password of {user}: ")


def new_password(user: str) -> str:
    """A password for somebody: asked for twice on a terminal, else a line of standard input. Raises UsageError."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        if not line:
            raise UsageError("standard input has no password: give it there as a line, or as --new-user-password")
        return line.rstrip("\r\n")
    from getpass import getpass

    password = getpass(f"New password of {user}: ")
    if password != getpass("Again: "):
        raise UsageError("the two passwords differ")
    return password
