"""`raftkv lock NAME -- COMMAND...`: a command under a lock, ended when the lock is lost.

What scripts rely on: the command's exit code is passed on, 4 means that the lock was not acquired, 1 that it was lost.
"""

import os
import socket
import sys

from raftkv.errors import LockLost, NotHeld
from raftkv.recipes.lock import Holder, Lock
from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.holding import hold_until_told, run_while_held
from raftkv_cli.leaseid import lease_name
from raftkv_cli.output import named_bytes, readable, write_json, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, positive_seconds

GRACE_SECONDS = 5.0


def run(call: Call) -> int:
    name = key_bytes(call.arguments["NAME"], "NAME")
    if call.flag("--queue"):
        if call.rest:
            raise UsageError("--queue runs no command")
        return show_queue(call, name)
    wait = call.options.get("--wait")
    owner = f"{socket.gethostname()}:{os.getpid()}"
    with open_client(call.settings) as client:
        lock = client.lock(name, ttl=call.seconds("--ttl", 10.0), shared=call.flag("--shared"), owner=owner)
        try:
            lock.acquire(wait)
            code = hold(call, lock, name)
        finally:
            was_lost = release(lock)
    if was_lost:
        sys.stderr.write("raftkv lock: lock_lost: the lock was lost\n")
        return exits.FAILED
    return code


def hold(call: Call, lock: Lock, name: bytes) -> int:
    if not call.rest:
        hold_until_told(call, {**named_bytes("key", lock.key), "token": lock.token}, str(lock.token), lock.lost)
        return exits.OK
    environment = {
        "RAFTKV_LOCK_NAME": os.fsdecode(name),
        "RAFTKV_LOCK_KEY": os.fsdecode(lock.key),
        "RAFTKV_LOCK_TOKEN": str(lock.token),
    }
    return run_while_held(call.rest, environment, lock.lost, call.seconds("--grace", GRACE_SECONDS))


def release(lock: Lock) -> bool:
    """Whether it had been lost."""
    try:
        lock.release()
    except LockLost:
        return True
    except NotHeld:
        pass  # we never came so far
    return False


def show_queue(call: Call, name: bytes) -> int:
    with open_client(call.settings) as client:
        line = client.lock(name).queue()
    if call.output == "json":
        write_json([document(holder) for holder in line])
    else:
        rows = [
            ("held" if holder.holds else "waits", holder.token, lease_name(holder.lease), readable(holder.owner))
            for holder in line
        ]
        write_table(("state", "token", "lease", "owner"), rows)
    return exits.OK


def document(holder: Holder) -> dict[str, object]:
    return {
        "state": "held" if holder.holds else "waits",
        "token": holder.token,
        "lease": lease_name(holder.lease),
        **named_bytes("key", holder.key),
        **named_bytes("owner", holder.owner),
    }


VERB = Verb(
    name="lock",
    summary="run a command under a lock",
    description=(
        "Waits for the lock NAME, runs COMMAND and passes its exit code. Exit code 4: not acquired within --wait. Exit code 1: the lock was lost, "
        "and COMMAND was ended. COMMAND finds RAFTKV_LOCK_NAME, RAFTKV_LOCK_KEY and RAFTKV_LOCK_TOKEN in its environment. Without COMMAND "
        "the token is printed and the lock held until Ctrl-C."
    ),
    run=run,
    arguments=(Argument("NAME", "the lock"),),
    options=(
        Option("--wait", "give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds),
        Option("--ttl", "how long it outlives us when we just die (default 10)", "SECONDS", convert=positive_seconds),
        Option(
            "--grace",
            "after a loss, between SIGTERM and SIGKILL (default 5)",
            "SECONDS",
            convert=positive_seconds,
        ),
        Option("--shared", "as a reader: together with other readers, never with a writer"),
        Option("--queue", "print who holds the lock and who waits"),
    ),
    examples=(
        ("raftkv lock merge -- ./merge.sh model-7", "one merge at a time"),
        ("raftkv lock merge --wait 60 -- ./merge.sh", "exit code 4 when it is not free within a minute"),
        ("raftkv lock merge --queue", "who holds it, who waits"),
    ),
    writes=True,
    takes_command=True,
)
