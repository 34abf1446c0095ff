"""`raftkv get KEY`: one key, or a range with --prefix or --range-end."""

import os
from typing import TYPE_CHECKING

from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least, one_of

if TYPE_CHECKING:
    from raftkv.client.results import RangeResult

RANGE_ONLY = ("--limit", "--sort", "--order")
NEEDS_RANGE = ("--rev", "--keys-only", "--count-only")
"""Options of a single key that only a range request can carry."""


def run(call: Call) -> int:
    is_range = call.flag("--prefix") or "--range-end" in call.options
    refuse_mixtures(call, is_range)
    if not is_range and not any(name in call.options for name in NEEDS_RANGE):
        return get_one(call)
    result = read(call, is_range)
    if call.flag("--count-only"):
        print_count(result.count, call.output)
        return exits.OK if result.count else exits.NOT_FOUND
    from raftkv_cli.keyvalues import print_many, print_one

    keys_only = call.flag("--keys-only")
    if is_range:
        print_many(result.kvs, call.output, keys_only=keys_only)
    elif result.kvs:
        print_one(result.kvs[0], call.output, keys_only=keys_only)
    return exits.OK if result.kvs else exits.NOT_FOUND


def get_one(call: Call) -> int:
    """The common case, and the cheapest request there is."""
    key = key_bytes(call.arguments["KEY"])
    with open_client(call.settings) as client:
        kv = client.get_kv(key, stale=call.flag("--stale"))
    if kv is None:
        return exits.NOT_FOUND
    from raftkv_cli.keyvalues import print_one

    print_one(kv, call.output, keys_only=False)
    return exits.OK


def refuse_mixtures(call: Call, is_range: bool) -> None:
    if call.flag("--prefix") and "--range-end" in call.options:
        raise UsageError("--prefix and --range-end exclude each other")
    if call.flag("--keys-only") and call.flag("--count-only"):
        raise UsageError("--keys-only and --count-only exclude each other")
    useless = [name for name in RANGE_ONLY if name in call.options]
    if useless and not is_range:
        raise UsageError(f"{useless[0]} needs --prefix or --range-end")


def read(call: Call, is_range: bool) -> "RangeResult":
    """One linearizable read of the whole range at one revision; of a single key it is a range of one."""
    prefix = call.flag("--prefix")
    text = call.arguments["KEY"]
    key = os.fsencode(text) if prefix else key_bytes(text)
    range_end = key_bytes(call.text("--range-end"), "--range-end") if is_range and not prefix else None
    sort_by = call.options.get("--sort")
    with open_client(call.settings) as client:
        return client.range(
            None if prefix else key,
            range_end,
            prefix=key if prefix else None,
            limit=call.number("--limit"),
            revision=call.number("--rev"),
            sort_by=sort_by,
            descending=call.text("--order", "ascend") == "descend",
            keys_only=call.flag("--keys-only"),
            count_only=call.flag("--count-only"),
            stale=call.flag("--stale"),
        )


def print_count(count: int, output: str) -> None:
    if output == "json":
        write_json({"count": count})
    elif output == "table":
        write_table(("count",), [(count,)])
    else:
        write_line(str(count))


VERB = Verb(
    name="get",
    summary="read a key or a range",
    description=(
        "Prints the raw value and a newline; nothing and exit code 3 when there is no such key. A range prints a key line and a\n"
        "value line each. Reads are linearizable unless --stale is given."
    ),
    run=run,
    arguments=(Argument("KEY", "the key, the prefix, or the first key of a range"),),
    options=(
        Option("--prefix", "all keys that start with KEY; an empty KEY means all"),
        Option("--range-end", "all keys from KEY up to this one, without it", "END"),
        Option("--limit", "at most so many keys", "N", convert=integer_at_least(1)),
        Option("--rev", "as of this revision", "REVISION", convert=integer_at_least(1)),
        Option(
            "--sort",
            "sort by key, version, create, mod or value",
            "BY",
            convert=one_of("key", "version", "create", "mod", "value"),
        ),
        Option("--order", "ascend or descend", "ORDER", convert=one_of("ascend", "descend")),
        Option("--keys-only", "without the values"),
        Option("--count-only", "only how many there are"),
        Option("--stale", "ask any member without confirming with the others; may be old"),
    ),
    examples=(
        ("raftkv get job/7/state", "one value"),
        ("raftkv get job/ --prefix --keys-only", "which keys are there?"),
        ("raftkv get a --range-end c -o json", "keys from a up to c, with their revisions"),
        ("raftkv get job/ --prefix --sort mod --order descend --limit 10", "the ten that changed last"),
    ),
)
