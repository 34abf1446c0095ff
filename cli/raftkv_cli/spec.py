"""What a verb is, as data: its arguments, options, texts and the function that runs it.

The parser, the help and the test that compares docs/cli.md with the code all read these. Named tuples and not
dataclasses: importing `dataclasses` costs more than a whole `raftkv get` may.
"""

from typing import Any, Callable, Mapping, NamedTuple

from raftkv_cli.settings import Settings


class UsageError(Exception):
    """The command line asks for something that does not exist or does not fit; one line, exit code 2."""


class Failed(Exception):
    """The verb could not do its work for a reason that is nobody's bug; one line, exit code 1."""


class Option(NamedTuple):
    """One option. Without a metavar it is a flag."""

    name: str
    help: str
    metavar: str = ""
    short: str = ""
    convert: Callable[[str], Any] = str
    """Raises ValueError with a text that completes the sentence "--option VALUE ..."."""


class Argument(NamedTuple):
    """One positional argument."""

    name: str
    help: str
    required: bool = True


class Call(NamedTuple):
    """What the user asked of a verb, parsed and checked."""

    arguments: Mapping[str, str]
    options: Mapping[str, Any]
    output: str
    settings: Settings
    rest: tuple[str, ...] = ()
    """Everything after the verb, untouched, for a verb that parses by itself."""

    def flag(self, name: str) -> bool:
        return bool(self.options.get(name, False))

    def text(self, name: str, default: str = "") -> str:
        value = self.options.get(name, default)
        assert isinstance(value, str), f"{name} is a text"
        return value

    def number(self, name: str, default: int = 0) -> int:
        value = self.options.get(name, default)
        assert isinstance(value, int), f"{name} is an integer"
        return value

    def seconds(self, name: str, default: float) -> float:
        value = self.options.get(name, default)
        assert isinstance(value, (int, float)), f"{name} is a number of seconds"
        return float(value)


class Verb(NamedTuple):
    """One verb of the command line."""

    name: str
    summary: str
    run: Callable[[Call], int]
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    description: str = ""
    examples: tuple[tuple[str, str], ...] = ()
    """(command, what it does)"""
    writes: bool = False
    """Changes the cluster, so that an error may leave its outcome unknown."""
    uses_cluster: bool = True
    """Talks to a cluster, so that a bad --endpoints or RAFTKV_ENDPOINTS is refused before it runs."""
    default_output: str = "value"
    parses_itself: bool = False
    takes_command: bool = False
    """What stands behind `--` is a command to run; it comes as the call's `rest`."""


def integer_at_least(minimum: int, maximum: int = 2**63 - 1) -> Callable[[str], int]:
    """A converter for whole numbers in [minimum, maximum]."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError("is not a whole number") from None
        if not minimum <= value <= maximum:
            raise ValueError(f"is not within {minimum} and {maximum}")
        return value

    return convert


def positive_seconds(text: str) -> float:
    """A converter for a duration in seconds: finite, above 0, at most a day."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError("is not a number of seconds") from None
    if not 0 < value <= 86_400:
        raise ValueError("is not within 0 and 86400 seconds")
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    """A converter that accepts only `choices`."""

    def convert(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return text

    return convert
