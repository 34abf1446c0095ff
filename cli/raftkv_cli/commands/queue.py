"""`raftkv queue put|claim|list|length|remove NAME`: items for workers in any language; a claim runs a command with the item."""

import os
import sys
from typing import TYPE_CHECKING

from raftkv.errors import LockLost
from raftkv_cli import exits
from raftkv_cli.actions import Action, perform
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.holding import run_while_held
from raftkv_cli.output import named_bytes, readable, write_bytes, write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, Verb, integer_at_least, positive_seconds

if TYPE_CHECKING:
    from raftkv.recipes.queue import Claim

GRACE_SECONDS = 5.0
PRIORITY_MAX = 10**9


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def name_of(call: Call) -> bytes:
    return key_bytes(call.arguments["NAME"], "NAME")


def put(call: Call) -> int:
    text = call.arguments["VALUE"]
    value = sys.stdin.buffer.read() if text == "-" else os.fsencode(text)
    with open_client(call.settings) as client:
        item = client.queue(name_of(call)).put(value, priority=call.number("--priority"))
    if call.output == "json":
        write_json({"id": item.decode()})
    else:
        write_line(item.decode())
    return exits.OK


def claim(call: Call) -> int:
    with open_client(call.settings) as client, client.queue(name_of(call), ttl=call.seconds("--ttl", 10.0)) as queue:
        item = queue.claim(call.options.get("--wait"))
        if not call.rest:
            # Acknowledged first: who is told of an item while it is handed out again would do it twice.
            item.ack()
            write_item(call, item)
            return exits.OK
        environment = {
            "RAFTKV_ITEM": os.fsdecode(item.value),
            "RAFTKV_ITEM_ID": item.id.decode(),
            "RAFTKV_ITEM_ATTEMPT": str(item.attempt),
            "RAFTKV_ITEM_TOKEN": str(item.token),
        }
        code = run_while_held(call.rest, environment, item.lost, call.seconds("--grace", GRACE_SECONDS))
        try:
            if code == exits.OK:
                item.ack()
            else:
                item.give_back()
        except LockLost:
            sys.stderr.write("raftkv queue: lock_lost: the item was handed out again\n")
            return exits.FAILED
    return code


def write_item(call: Call, item: "Claim") -> None:
    if call.output == "json":
        write_json({"id": item.id.decode(), **named_bytes("value", item.value), "attempt": item.attempt})
    else:
        write_bytes(item.value + b"\n")


def list_(call: Call) -> int:
    with open_client(call.settings) as client:
        items = client.queue(name_of(call)).items()
    if call.output == "json":
        write_json(
            [
                {
                    "id": item.id.decode(),
                    **named_bytes("value", item.value),
                    "priority": item.priority,
                    "attempts": item.attempts,
                    "claimed": item.claimed,
                }
                for item in items
            ]
        )
        return exits.OK
    rows = [
        (
            item.id.decode(),
            item.priority,
            item.attempts,
            "claimed" if item.claimed else "waits",
            readable(item.value),
        )
        for item in items
    ]
    write_table(("id", "priority", "attempts", "state", "value"), rows)
    return exits.OK


def length(call: Call) -> int:
    with open_client(call.settings) as client:
        count = client.queue(name_of(call)).length()
    if call.output == "json":
        write_json({"length": count})
    else:
        write_line(str(count))
    return exits.OK


def remove(call: Call) -> int:
    with open_client(call.settings) as client:
        removed = client.queue(name_of(call)).remove(os.fsencode(call.arguments["VALUE"]))
    write_line("1" if removed else "0")
    return exits.OK if removed else exits.NOT_FOUND


ACTIONS = {
    "put": Action(put, ("NAME", "VALUE"), options=("--priority",)),
    "claim": Action(claim, ("NAME",), options=("--wait", "--ttl", "--grace"), command=True),
    "list": Action(list_, ("NAME",)),
    "length": Action(length, ("NAME",)),
    "remove": Action(remove, ("NAME", "ID")),
}

VERB = Verb(
    name="queue",
    summary="hand items to workers, each to one at a time",
    description=(
        "put NAME VALUE appends an item (- reads standard input) and prints its id. claim NAME takes the next one and runs COMMAND with RAFTKV_ITEM "
        "(and _ID, _ATTEMPT, _TOKEN) in its environment: exit code 0 acknowledges it, any other gives it back, and the death of either of us does, "
        "too. Without COMMAND the item is taken out and printed. Exit code 4: nothing to do within --wait."
    ),
    run=run,
    arguments=(
        Argument("ACTION", "put, claim, list, length or remove"),
        Argument("NAME", "the queue", required=False),
        Argument("VALUE", "put: the item; remove: its id", required=False),
    ),
    options=(
        Option(
            "--priority",
            "put: larger comes first (default 0)",
            "NUMBER",
            convert=integer_at_least(-PRIORITY_MAX, PRIORITY_MAX),
        ),
        Option("--wait", "claim: give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds),
        Option(
            "--ttl", "claim: how long it outlives us when we just die (default 10)", "SECONDS", convert=positive_seconds
        ),
        Option(
            "--grace",
            "claim: after a loss, between SIGTERM and SIGKILL (default 5)",
            "SECONDS",
            convert=positive_seconds,
        ),
    ),
    examples=(
        ("raftkv queue put merges model-7 --priority 5", "prints its id"),
        ("raftkv queue claim merges -- sh -c './merge.sh \"$RAFTKV_ITEM\"'", "the next one"),
    ),
    writes=True,
    takes_command=True,
)
