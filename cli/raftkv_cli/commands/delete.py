"""`raftkv del KEY`: one key, or a range with --prefix or --range-end."""

import os

from raftkv.wire.commands import prefix_range_end
from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.guards import GUARD, writer
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb


def run(call: Call) -> int:
    prefix = call.flag("--prefix")
    if prefix and "--range-end" in call.options:
        raise UsageError("--prefix and --range-end exclude each other")
    text = call.arguments["KEY"]
    if prefix and not text and not call.flag("--all"):
        raise UsageError("an empty prefix deletes everything; say --all as well if that is meant")
    key = os.fsencode(text) if prefix else key_bytes(text)
    range_end = b""
    if prefix:
        key, range_end = key or b"\0", prefix_range_end(key)
    elif "--range-end" in call.options:
        range_end = key_bytes(call.text("--range-end"), "--range-end")
    with open_client(call.settings) as client:
        result = writer(call, client).delete_range(key, range_end)
    if call.output == "json":
        write_json({"deleted": result.deleted, "revision": result.revision})
    elif call.output == "table":
        write_table(("deleted", "revision"), [(result.deleted, result.revision)])
    else:
        write_line(str(result.deleted))
    return exits.OK if result.deleted else exits.NOT_FOUND


VERB = Verb(
    name="del",
    summary="delete a key or a range",
    description="Prints how many keys were deleted; exit code 3 when there were none.",
    run=run,
    arguments=(Argument("KEY", "the key, the prefix, or the first key of a range"),),
    options=(
        Option("--prefix", "all keys that start with KEY"),
        Option("--range-end", "all keys from KEY up to this one, without it", "END"),
        Option("--all", "with an empty prefix: yes, every key"),
        GUARD,
    ),
    examples=(
        ("raftkv del job/7/state", "one key"),
        ("raftkv del job/7/ --prefix", "everything below job/7/"),
        ("raftkv del '' --prefix --all", "the whole store"),
    ),
    writes=True,
)
