"""From the words of a command line to a Call. Hand-written: argparse alone takes a fifth of the time of a `raftkv get`.

Global options stand before or after the verb. `--name value` and `--name=value` are the same; `--` ends the options; a
word like -5 is an argument, since no option looks like a number. The last of a repeated option counts.
"""

from typing import Any, Mapping, NamedTuple, Sequence

from raftkv_cli.settings import DEFAULT_ENDPOINTS
from raftkv_cli.spec import Argument, Option, UsageError, Verb, one_of, positive_seconds

OUTPUTS = ("value", "table", "json")

OUTPUT = Option("--output", f"format of the answer: {', '.join(OUTPUTS)}", "FORMAT", "-o", one_of(*OUTPUTS))
GLOBAL_OPTIONS = (
    Option("--endpoints", f"members to ask (RAFTKV_ENDPOINTS, default {DEFAULT_ENDPOINTS})", "HOST:PORT,..."),
    Option("--cluster-name", "refuse to talk to a cluster of another name (RAFTKV_CLUSTER_NAME)", "NAME"),
    Option("--user", "log in as this user; asks for a password that is not given (RAFTKV_USER)", "NAME[:PASSWORD]"),
    Option("--password", "the password of --user (RAFTKV_PASSWORD)", "PASSWORD"),
    Option("--cacert", "speak TLS with members whose certificate this CA vouches for (RAFTKV_CACERT)", "FILE"),
    Option("--cert", "own certificate, for members that ask for one (RAFTKV_CERT)", "FILE"),
    Option("--key", "its private key (RAFTKV_KEY)", "FILE"),
    Option("--insecure-skip-tls-verify", "speak TLS, and believe anybody: for tries only"),
    Option("--timeout", "how long to wait for an answer (default 5)", "SECONDS", convert=positive_seconds),
    OUTPUT,
)
HELP = Option("--help", "show this help", short="-h")


class Words(NamedTuple):
    """Parsed words: option values by name, the arguments, and what was left behind the first argument."""

    options: dict[str, Any]
    arguments: list[str]
    rest: list[str]


def parse_words(
    words: Sequence[str], options: Sequence[Option], *, stop_at_argument: bool = False, takes_command: bool = False
) -> Words:
    """Sort words into options and arguments; with `takes_command`, what is behind `--` is the rest. Raises UsageError."""
    table = option_table(options)
    values: dict[str, Any] = {}
    arguments: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not is_option(word):
            arguments.append(word)
            if stop_at_argument:
                break
        elif word == "--" and takes_command:
            break
        elif word == "--":
            arguments.extend(words[position:])
            position = len(words)
        else:
            option, inline = find_option(word, table)
            if not option.metavar:
                values[option.name] = no_value(option, inline)
                continue
            if inline is None:
                if position == len(words):
                    raise UsageError(f"{option.name} needs a value ({option.metavar})")
                inline = words[position]
                position += 1
            values[option.name] = converted(option, inline)
    return Words(values, arguments, list(words[position:]))


def is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and not word[1].isdigit()


def option_table(options: Sequence[Option]) -> dict[str, Option]:
    table = {option.name: option for option in options}
    assert len(table) == len(options), "option names are unique"
    table.update({option.short: option for option in options if option.short})
    return table


def find_option(word: str, table: Mapping[str, Option]) -> tuple[Option, str | None]:
    """The option that a word names, and the value in the same word if there is one."""
    if word.startswith("--"):
        name, equals, value = word.partition("=")
        inline = value if equals else None
    else:
        name, inline = word[:2], word[2:].removeprefix("=") or None
    option = table.get(name)
    if option is None:
        raise UsageError(f"unknown option {name}{nearest(name, table)}")
    return option, inline


def no_value(option: Option, inline: str | None) -> bool:
    if inline is not None:
        raise UsageError(f"{option.name} takes no value, but got {inline!r}")
    return True


def converted(option: Option, text: str) -> Any:
    try:
        return option.convert(text)
    except ValueError as error:
        raise UsageError(f"{option.name} {text!r} {error}") from None


def bind_arguments(words: Sequence[str], arguments: Sequence[Argument]) -> dict[str, str]:
    """Give the arguments their names. Raises UsageError for a missing one and for one too many."""
    bound = {argument.name: word for argument, word in zip(arguments, words, strict=False)}
    for argument in arguments:
        if argument.required and argument.name not in bound:
            raise UsageError(f"{argument.name} is missing")
    if len(words) > len(arguments):
        raise UsageError(f"unexpected argument {words[len(arguments)]!r} (quote a value that has spaces)")
    return bound


def verb_options(verb: Verb) -> tuple[Option, ...]:
    """All options that a verb takes; its own meaning of a name wins over the global one."""
    own = {option.name for option in verb.options}
    shared = GLOBAL_OPTIONS if verb.uses_cluster else (OUTPUT,)
    return (*verb.options, *(option for option in shared if option.name not in own), HELP)


def nearest(word: str, known: Mapping[str, object]) -> str:
    """`; did you mean X?` or nothing. difflib is imported only for somebody who mistyped."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {matches[0]}?" if matches else ""
