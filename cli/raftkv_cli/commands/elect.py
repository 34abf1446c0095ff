"""`raftkv elect NAME [VALUE]`: campaign, and lead until Ctrl-C or for as long as a command runs; `--listen` tells who leads."""

import os
import socket
import sys
from typing import TYPE_CHECKING

from raftkv.errors import LockLost, NotHeld
from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.holding import hold_until_told, run_while_held
from raftkv_cli.output import named_bytes, write_bytes, write_json
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, positive_seconds

if TYPE_CHECKING:
    from raftkv.recipes.election import Election, Leader

GRACE_SECONDS = 5.0


def run(call: Call) -> int:
    name = key_bytes(call.arguments["NAME"], "NAME")
    if call.flag("--listen") or call.flag("--leader"):
        if call.rest or "VALUE" in call.arguments:
            raise UsageError("who only looks campaigns with no VALUE and no command")
        return look(call, name)
    value = os.fsencode(call.arguments.get("VALUE", f"{socket.gethostname()}:{os.getpid()}"))
    with open_client(call.settings) as client:
        election = client.election(name, ttl=call.seconds("--ttl", 10.0))
        try:
            election.campaign(value, call.options.get("--wait"))
            code = lead(call, election, name)
        finally:
            was_lost = resign(election)
    if was_lost:
        sys.stderr.write("raftkv elect: lock_lost: the office was lost\n")
        return exits.FAILED
    return code


def lead(call: Call, election: "Election", name: bytes) -> int:
    if call.rest:
        environment = {
            "RAFTKV_ELECTION_NAME": os.fsdecode(name),
            "RAFTKV_ELECTION_KEY": os.fsdecode(election.key),
            "RAFTKV_ELECTION_TOKEN": str(election.token),
        }
        return run_while_held(call.rest, environment, election.lost, call.seconds("--grace", GRACE_SECONDS))
    hold_until_told(
        call, {**named_bytes("key", election.key), "token": election.token}, str(election.token), election.lost
    )
    return exits.OK


def resign(election: "Election") -> bool:
    """Whether the office had been lost."""
    try:
        election.resign()
    except LockLost:
        return True
    except NotHeld:
        pass  # we never came so far
    return False


def look(call: Call, name: bytes) -> int:
    with open_client(call.settings) as client:
        election = client.election(name)
        if call.flag("--listen"):
            for leader in election.observe():
                show(call, leader)
        leader_now = election.leader()
    if leader_now is None:
        return exits.NOT_FOUND
    show(call, leader_now)
    return exits.OK


def show(call: Call, leader: "Leader") -> None:
    if call.output == "json":
        write_json({**named_bytes("key", leader.key), **named_bytes("value", leader.value), "token": leader.token})
    else:
        write_bytes(leader.value + b"\n")


VERB = Verb(
    name="elect",
    summary="take part in an election, or see who leads",
    description=(
        "Waits to be elected as NAME's leader and says VALUE (host:pid by default); leads until Ctrl-C, or while COMMAND runs, which is ended "
        "when the office is lost (exit code 1). Exit code 4: not elected within --wait. COMMAND finds RAFTKV_ELECTION_NAME, _KEY and _TOKEN "
        "in its environment. --listen prints each leader's value as it comes, --leader the one of now."
    ),
    run=run,
    arguments=(
        Argument("NAME", "the election"),
        Argument("VALUE", "what the leader says of itself", required=False),
    ),
    options=(
        Option("--wait", "give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds),
        Option("--ttl", "how long the office outlives us (default 10)", "SECONDS", convert=positive_seconds),
        Option("--grace", "after a loss, between SIGTERM and SIGKILL (default 5)", "SECONDS", convert=positive_seconds),
        Option("--listen", "print who leads, now and whenever that changes"),
        Option("--leader", "print who leads now; exit code 3 when nobody does"),
    ),
    examples=(
        ("raftkv elect scheduler host-a -- ./scheduler", "one scheduler at a time, another takes over"),
        ("raftkv elect scheduler --leader", "who is it?"),
    ),
    writes=True,
    takes_command=True,
)
