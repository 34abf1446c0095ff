"""`raftkv barrier close|open|wait|meet NAME`: a gate for scripts, and a point where several of them meet."""

import subprocess
from contextlib import suppress

from raftkv.errors import NotHeld
from raftkv_cli import exits
from raftkv_cli.actions import Action, perform
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.holding import start
from raftkv_cli.output import write_line
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least, positive_seconds


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def close(call: Call) -> int:
    with open_client(call.settings) as client:
        client.barrier(key_bytes(call.arguments["NAME"], "NAME")).close()
    write_line("OK")
    return exits.OK


def open_(call: Call) -> int:
    with open_client(call.settings) as client:
        was_closed = client.barrier(key_bytes(call.arguments["NAME"], "NAME")).open()
    write_line("OK" if was_closed else "it was open")
    return exits.OK


def wait(call: Call) -> int:
    with open_client(call.settings) as client:
        client.barrier(key_bytes(call.arguments["NAME"], "NAME")).wait(call.options.get("--wait"))
    return exits.OK


def meet(call: Call) -> int:
    try:
        count = integer_at_least(1)(call.arguments["VALUE"])
    except ValueError as error:
        raise UsageError(f"COUNT {call.arguments['VALUE']!r} {error}") from None
    with open_client(call.settings) as client:
        point = client.double_barrier(key_bytes(call.arguments["NAME"], "NAME"), count)
        code = exits.OK
        try:
            point.enter(call.options.get("--wait"))
            if call.rest:
                child = start(call.rest, {})
                code = child.wait() if isinstance(child, subprocess.Popen) else child
        finally:
            with suppress(NotHeld):  # not all came
                point.leave(call.options.get("--wait"))
    return code if code >= 0 else 128 - code


ACTIONS = {
    "close": Action(close, ("NAME",)),
    "open": Action(open_, ("NAME",)),
    "wait": Action(wait, ("NAME",), options=("--wait",)),
    "meet": Action(meet, ("NAME", "COUNT"), options=("--wait",), command=True),
}

VERB = Verb(
    name="barrier",
    summary="close, open and wait at a gate; meet at a point",
    description=(
        "close NAME closes a gate, open NAME opens it, wait NAME waits until it is open (exit code 4 when it stays closed for --wait). "
        "meet NAME COUNT waits until COUNT of them are there, runs COMMAND if there is one, and waits until all have left."
    ),
    run=run,
    arguments=(
        Argument("ACTION", "close, open, wait or meet"),
        Argument("NAME", "the gate, or the meeting point", required=False),
        Argument("VALUE", "meet: how many take part", required=False),
    ),
    options=(Option("--wait", "give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds),),
    examples=(
        ("raftkv barrier close maintenance", "whoever waits there stays outside"),
        ("raftkv barrier wait maintenance && ./start", "once it is open"),
        ("raftkv barrier meet start 4 -- ./worker", "four of them, together"),
    ),
    writes=True,
    takes_command=True,
)
