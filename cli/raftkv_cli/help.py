"""The texts of `raftkv --help` and `raftkv VERB --help`, made from the specifications."""

from itertools import groupby
from textwrap import fill
from typing import Sequence

from raftkv_cli.parse import GLOBAL_OPTIONS, HELP
from raftkv_cli.spec import Argument, Option, Verb
from raftkv_cli.verbs import VERBS

WIDTH = 100
RIGHT_WIDTH_MIN = 40
EXIT_CODES = (
    ("0", "ok"),
    ("1", "refused or failed"),
    ("2", "bad usage"),
    ("3", "not found"),
    ("4", "no quorum or unreachable: surely not done"),
    ("5", "outcome unknown: it may have been done"),
)


def overview() -> str:
    """`raftkv --help`."""
    sections = [
        "usage: raftkv [OPTIONS] VERB [ARGUMENTS] [OPTIONS]\n\nA Raft consensus key-value store: daemon, client and tools.",
        section("verbs", [(name, summary) for name, (_, summary) in VERBS.items()]),
        section("options, before or after the verb", [option_row(option) for option in (*GLOBAL_OPTIONS, HELP)]),
        section("exit codes", EXIT_CODES),
        section(
            "start here",
            [
                ("raftkv dev", "three members on this machine"),
                ("raftkv put greeting hello", "in another terminal"),
                ("raftkv VERB --help", "a verb's options and examples"),
            ],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def verb_help(verb: Verb) -> str:
    """`raftkv VERB --help`."""
    usage = " ".join(["raftkv", verb.name, *(argument_word(argument) for argument in verb.arguments), "[OPTIONS]"])
    if verb.takes_command:
        usage += " -- COMMAND [ARGUMENTS]"
    sections = [f"usage: {usage}\n\n{paragraphs(verb.description or verb.summary)}"]
    if verb.arguments:
        sections.append(section("arguments", [(argument.name, argument.help) for argument in verb.arguments]))
    if verb.options:
        sections.append(section("options", [option_row(option) for option in verb.options]))
    if verb.uses_cluster:
        own = {option.name for option in verb.options}
        rows = [option_row(option) for option in (*GLOBAL_OPTIONS, HELP) if option.name not in own]
        sections.append(section("global options", rows))
    if verb.examples:
        lines = [f"  {command}\n      {meaning}" for command, meaning in verb.examples]
        sections.append("examples:\n" + "\n".join(lines))
    return "\n\n".join(sections) + "\n"


def argument_word(argument: Argument) -> str:
    return argument.name if argument.required else f"[{argument.name}]"


def option_row(option: Option) -> tuple[str, str]:
    names = f"{option.short}, {option.name}" if option.short else option.name
    return f"{names} {option.metavar}".rstrip(), option.help


def paragraphs(text: str) -> str:
    """Lines that belong together are filled anew; empty and indented ones stay as they are."""
    parts: list[str] = []
    for stays, group in groupby(text.splitlines(), key=lambda line: not line or line.startswith(" ")):
        lines = list(group)
        parts += lines if stays else [fill(" ".join(lines), WIDTH, break_on_hyphens=False)]
    return "\n".join(parts)


def section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    indent = " " * (width + 4)
    right_width = max(WIDTH, len(indent) + RIGHT_WIDTH_MIN)
    lines = [
        fill(
            right, right_width, initial_indent=f"  {left:<{width}}  ", subsequent_indent=indent, break_on_hyphens=False
        )
        for left, right in rows
    ]
    return "\n".join([f"{title}:", *lines])
