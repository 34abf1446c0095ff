"""The entry of the command line: find the verb, parse, run, and turn every ending into an exit code.

Whatever goes wrong leaves as one line on stderr, never as a traceback (RAFTKV_DEBUG=1 shows it to whoever looks for the bug).
"""

import os
import signal
import sys
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Iterator, NamedTuple, NoReturn, Sequence

from raftkv.errors import RaftKVError
from raftkv_cli import exits
from raftkv_cli.parse import GLOBAL_OPTIONS, HELP, Words, bind_arguments, nearest, parse_words, verb_options
from raftkv_cli.settings import Settings, resolve_settings
from raftkv_cli.spec import Call, Failed, Option, UsageError, Verb
from raftkv_cli.verbs import VERBS, load_verb

VERSION = Option("--version", "print the version")


class Terminated(KeyboardInterrupt):
    """SIGTERM: what a verb holds, or waits for, is given back as after Ctrl-C."""


class Plan(NamedTuple):
    """What is to be done: a verb with its call, or a text to print."""

    verb: Verb | None
    call: Call | None
    text: str = ""


def entry() -> int:
    """The console script."""
    return main(sys.argv[1:])


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code. Never raises, except for SystemExit of a verb that parses itself."""
    name, writes = "", False
    try:
        before = parse_words(argv, (*GLOBAL_OPTIONS, HELP, VERSION), stop_at_argument=True)
        name = before.arguments[0] if before.arguments and before.arguments[0] in VERBS else ""
        plan = make_plan(before)
        if plan.verb is None or plan.call is None:
            sys.stdout.write(plan.text)
            code = exits.OK
        else:
            writes = plan.verb.writes
            with told_of_the_end() if plan.verb.takes_command else nullcontext():
                code = plan.verb.run(plan.call)
        sys.stdout.flush()
        return code
    except Terminated:
        return exits.TERMINATED
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return leave_broken_pipe()
    except UsageError as error:
        hint = f"raftkv {name} --help" if name else "raftkv --help"
        return complain(name, f"{error} ({hint})", exits.USAGE)
    except Failed as error:
        return complain(name, str(error), exits.FAILED)
    except RaftKVError as error:
        return complain(name, error_text(error, writes), exits.exit_code_of(error, writes=writes))
    except OSError as error:
        return leave_os_error(name, error)
    except Exception as error:
        if os.environ.get("RAFTKV_DEBUG"):
            raise
        text = f"internal: {type(error).__name__}: {error} (RAFTKV_DEBUG=1 shows where)"
        return complain(name, text, exits.UNKNOWN if writes else exits.FAILED)


@contextmanager
def told_of_the_end() -> Iterator[None]:
    """SIGTERM is an exception within the block: who holds something, or stands in a line for it, lets others wait for a whole lease otherwise."""

    def terminate(_number: int, _frame: FrameType | None) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def make_plan(before: Words) -> Plan:
    """From the words before the verb and the rest to what is to be done. Raises UsageError."""
    from_help = before.arguments[:1] == ["help"]
    if VERSION.name in before.options:
        before = before._replace(options={}, arguments=["version"], rest=[])
    elif from_help:
        before = before._replace(arguments=before.rest[:1], rest=["--help"])
    if not before.arguments:
        return overview_plan(asked=from_help or HELP.name in before.options)
    name = before.arguments[0]
    if name not in VERBS:
        raise UsageError(f"unknown verb {name!r}{nearest(name, VERBS)}")
    verb = load_verb(name)
    if HELP.name in before.options:
        return help_plan(verb)
    taken = {option.name for option in verb_options(verb)}
    for option in before.options:
        if verb.parses_itself or option not in taken:
            raise UsageError(f"{option} before {name} means nothing")
    if verb.parses_itself:
        return Plan(verb, Call({}, {}, "value", Settings(), tuple(before.rest)))
    after = parse_words(before.rest, verb_options(verb), takes_command=verb.takes_command)
    if HELP.name in after.options:
        return help_plan(verb)
    options = {**before.options, **after.options}
    call = Call(
        bind_arguments(after.arguments, verb.arguments),
        options,
        str(options.get("--output", verb.default_output)),
        cluster_settings(options) if verb.uses_cluster else Settings(),
        tuple(after.rest),
    )
    return Plan(verb, call)


def cluster_settings(options: dict[str, object]) -> Settings:
    try:
        return resolve_settings(options, os.environ)
    except ValueError as error:
        raise UsageError(str(error)) from None


def overview_plan(*, asked: bool) -> Plan:
    from raftkv_cli.help import overview

    if not asked:
        raise UsageError(f"a verb is missing: {', '.join(VERBS)}")
    return Plan(None, None, overview())


def help_plan(verb: Verb) -> Plan:
    from raftkv_cli.help import verb_help

    return (
        Plan(verb, Call({}, {}, "value", Settings(), ("--help",)))
        if verb.parses_itself
        else Plan(None, None, verb_help(verb))
    )


def error_text(error: RaftKVError, writes: bool) -> str:
    text = f"{error.code}: {error.message}"
    if writes and error.may_have_happened and "may have happened" not in text:
        text += " (the write may have happened)"
    return text


def complain(name: str, text: str, code: int) -> int:
    """One line on stderr; control characters in it are shown, not sent to the terminal."""
    line = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in " ".join(text.split()))
    try:
        sys.stderr.write(f"raftkv {name}: {line}\n" if name else f"raftkv: {line}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody listens; the exit code still tells
    return code


def leave_broken_pipe() -> int:
    """Whoever read our output went away, as `head` does. The interpreter must not try to flush again when it ends."""
    silence_stdout()
    return exits.BROKEN_PIPE


def leave_os_error(name: str, error: OSError) -> int:
    silence_stdout()
    where = f"{error.filename}: " if error.filename else ""
    return complain(name, f"{where}{error.strerror or error}", exits.FAILED)


def silence_stdout() -> None:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass  # no stdout to silence
