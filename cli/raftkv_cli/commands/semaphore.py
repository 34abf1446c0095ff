"""`raftkv semaphore NAME --capacity N -- COMMAND...`: a command while there is room for it, ended when its place is lost.

Exit codes as of `raftkv lock`: the command's own, 4 when there was no room in time, 1 when the place was lost.
"""

import os
import socket
import sys

from raftkv.errors import LockLost, NotHeld
from raftkv.recipes.semaphore import Entry, Semaphore
from raftkv_cli import exits
from raftkv_cli.commands.lock import GRACE_SECONDS
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.holding import hold_until_told, run_while_held
from raftkv_cli.leaseid import lease_name
from raftkv_cli.output import named_bytes, write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least, positive_seconds

PRIORITY_MAX = 2**31 - 1
CAPACITY_MAX = 2**31 - 1


def run(call: Call) -> int:
    name = key_bytes(call.arguments["NAME"], "NAME")
    asks = [option for option in ("--queue", "--resize") if option in call.options]
    if len(asks) > 1:
        raise UsageError("--queue and --resize exclude each other")
    if asks:
        if call.rest:
            raise UsageError(f"{asks[0]} runs no command")
        return show_queue(call, name) if call.flag("--queue") else resize(call, name)
    capacity, weight = call.number("--capacity"), call.number("--weight", 1)
    if not capacity:
        raise UsageError("--capacity is required: how much may be in at a time")
    if weight > capacity:
        raise UsageError(f"--weight {weight} is more than --capacity {capacity}")
    return hold(call, name, capacity, weight)


def hold(call: Call, name: bytes, capacity: int, weight: int) -> int:
    owner = f"{socket.gethostname()}:{os.getpid()}"
    with open_client(call.settings) as client:
        semaphore = client.semaphore(
            name,
            capacity,
            weight=weight,
            priority=call.number("--priority"),
            ttl=call.seconds("--ttl", 10.0),
            owner=owner,
        )
        try:
            semaphore.acquire(call.options.get("--wait"))
            code = while_held(call, semaphore, name)
        finally:
            was_lost = release(semaphore)
    if was_lost:
        sys.stderr.write("raftkv semaphore: lock_lost: the place was lost\n")
        return exits.FAILED
    return code


def while_held(call: Call, semaphore: Semaphore, name: bytes) -> int:
    if not call.rest:
        hold_until_told(
            call, {**named_bytes("key", semaphore.key), "token": semaphore.token}, str(semaphore.token), semaphore.lost
        )
        return exits.OK
    environment = {
        "RAFTKV_SEMAPHORE_NAME": os.fsdecode(name),
        "RAFTKV_SEMAPHORE_KEY": os.fsdecode(semaphore.key),
        "RAFTKV_SEMAPHORE_TOKEN": str(semaphore.token),
    }
    return run_while_held(call.rest, environment, semaphore.lost, call.seconds("--grace", GRACE_SECONDS))


def release(semaphore: Semaphore) -> bool:
    """Whether it had been lost."""
    try:
        semaphore.release()
    except LockLost:
        return True
    except NotHeld:
        pass  # we never came so far
    return False


def resize(call: Call, name: bytes) -> int:
    capacity = call.number("--resize")
    with open_client(call.settings) as client:
        client.semaphore(name, capacity).resize(capacity)
    write_line("OK")
    return exits.OK


def show_queue(call: Call, name: bytes) -> int:
    with open_client(call.settings) as client:
        standing = client.semaphore(name, 1).standing()
    line = [("in", entry) for entry in standing.held] + [("waits", entry) for entry in standing.waiting]
    if call.output == "json":
        write_json(
            {
                "capacity": standing.capacity,
                "used": standing.used,
                "queue": [document(state, entry) for state, entry in line],
            }
        )
    else:
        rows = [(state, entry.created, entry.weight, entry.priority, entry.owner) for state, entry in line]
        write_table(("state", "token", "weight", "priority", "owner"), rows)
    return exits.OK


def document(state: str, entry: Entry) -> dict[str, object]:
    return {
        "state": state,
        "token": entry.created,
        "weight": entry.weight,
        "priority": entry.priority,
        "lease": lease_name(entry.lease),
        "owner": entry.owner,
        **named_bytes("key", entry.key),
    }


VERB = Verb(
    name="semaphore",
    summary="run a command while there is room for it",
    description=(
        "Waits until --weight fits beside those that are in, runs COMMAND and passes its exit code. Nobody is overtaken by somebody lighter. "
        "Exit code 4: no room within --wait. Exit code 1: the place was lost, and COMMAND was ended. COMMAND finds RAFTKV_SEMAPHORE_NAME, "
        "RAFTKV_SEMAPHORE_KEY and RAFTKV_SEMAPHORE_TOKEN in its environment. Without COMMAND the token is printed and the place held until Ctrl-C."
    ),
    run=run,
    arguments=(Argument("NAME", "the semaphore"),),
    options=(
        Option(
            "--capacity",
            "how much may be in at a time; the first one says it for all",
            "N",
            convert=integer_at_least(1, CAPACITY_MAX),
        ),
        Option("--weight", "how much of it this one takes (default 1)", "W", convert=integer_at_least(1, CAPACITY_MAX)),
        Option(
            "--priority",
            "the largest comes first, then the oldest (default 0)",
            "P",
            convert=integer_at_least(-PRIORITY_MAX, PRIORITY_MAX),
        ),
        Option("--wait", "give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds),
        Option(
            "--ttl", "how long the place outlives us when we just die (default 10)", "SECONDS", convert=positive_seconds
        ),
        Option(
            "--grace",
            "after a loss, between SIGTERM and SIGKILL (default 5)",
            "SECONDS",
            convert=positive_seconds,
        ),
        Option("--queue", "print who is in and who waits"),
        Option(
            "--resize",
            "another capacity for everybody, and nothing else",
            "N",
            convert=integer_at_least(1, CAPACITY_MAX),
        ),
    ),
    examples=(
        ("raftkv semaphore gpu --capacity 8 --weight 2 -- python train.py", "eight GPUs, two for this one"),
        ("raftkv semaphore gpu --queue", "who is in, who waits"),
        ("raftkv semaphore gpu --resize 16", "from now on there are sixteen"),
    ),
    writes=True,
    takes_command=True,
)
