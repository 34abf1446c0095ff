"""`raftkv put KEY VALUE`."""

import os
import sys

from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.guards import GUARD, writer
from raftkv_cli.leaseid import parse_lease
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Failed, Option, Verb

STDIN_BYTES_MAX = 64 * 1024 * 1024


def run(call: Call) -> int:
    key = key_bytes(call.arguments["KEY"])
    text = call.arguments["VALUE"]
    value = read_stdin() if text == "-" else os.fsencode(text)
    with open_client(call.settings) as client:
        result = writer(call, client).put(key, value, lease=call.number("--lease"))
    if call.output == "json":
        write_json({"revision": result.revision})
    elif call.output == "table":
        write_table(("result", "revision"), [("OK", result.revision)])
    else:
        write_line("OK")
    return exits.OK


def read_stdin() -> bytes:
    """All of standard input; far above any value limit it is refused here, the exact limit is the cluster's to say."""
    if sys.stdin is None:
        raise Failed("standard input is closed")
    data = sys.stdin.buffer.read(STDIN_BYTES_MAX + 1)
    if len(data) > STDIN_BYTES_MAX:
        raise Failed(f"standard input has more than {STDIN_BYTES_MAX} bytes: no value may be that large")
    return data


VERB = Verb(
    name="put",
    summary="set a key",
    description="Prints OK when the write is durable on a majority. `-` as the value reads standard input, to its end and as it is.",
    run=run,
    arguments=(Argument("KEY", "the key"), Argument("VALUE", "the value, or - for standard input")),
    options=(Option("--lease", "the lease that the key hangs on", "ID", convert=parse_lease), GUARD),
    examples=(
        ("raftkv put job/7/state running", "a text"),
        ("raftkv put job/7/config - < config.yaml", "a file"),
        ("printf - | raftkv put dash -", "a value that is a dash"),
        ("raftkv put -- --odd-key --odd-value", "words that look like options"),
    ),
    writes=True,
)
