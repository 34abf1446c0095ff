"""`raftkv pool create|set|list|acquire|release|queue|why|delete`: pools of machines, memory and licences, shared by weight."""

import os
import sys
from typing import TYPE_CHECKING, Any

from raftkv.errors import LockLost
from raftkv_cli import exits
from raftkv_cli.actions import Action, perform
from raftkv_cli.connect import open_client
from raftkv_cli.holding import hold_until_told, run_while_held
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least, positive_seconds

if TYPE_CHECKING:
    from raftkv import Client
    from raftkv.recipes.pool import PoolRequest
    from raftkv.recipes.pool_blocking import Grant

GRACE_SECONDS = 5.0
SETTINGS = {
    "--threshold": "threshold",
    "--age-weight": "age_weight",
    "--staleness-weight": "staleness_weight",
    "--max-wait": "max_wait",
    "--max-run": "max_run",
    "--notice": "grace",
}


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def amounts(text: str) -> dict[str, int]:
    """From `gpu=2,mem=64`. Raises UsageError."""
    found: dict[str, int] = {}
    for part in text.split(","):
        name, equals, number = part.partition("=")
        if not (name and equals and number.isdecimal()):
            raise UsageError(f"{part!r} is not RESOURCE=AMOUNT, as in gpu=2,mem=64")
        found[name] = int(number)
    return found


def named_amounts(text: str, option: str) -> dict[str, dict[str, int]]:
    """From `licences:matlab=1;disks:gb=5`. Raises UsageError."""
    found: dict[str, dict[str, int]] = {}
    for part in text.split(";"):
        name, colon, rest = part.partition(":")
        if not (name and colon):
            raise UsageError(f"{option} {part!r} is not NAME:RESOURCE=AMOUNT")
        found[name] = amounts(rest)
    return found


def settings(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {name: call.options[option] for option, name in SETTINGS.items() if option in call.options}
    if "--class" in call.options:
        found["classes"] = amounts(call.text("--class"))
    if "--quota" in call.options:
        found["quotas"] = named_amounts(call.text("--quota"), "--quota")
    if "--backfill" in call.options:
        found["backfill"] = call.options["--backfill"]
    return found


def create(call: Call) -> int:
    with open_client(call.settings) as client:
        client.pool(call.arguments["NAME"]).create(amounts(call.arguments["VALUE"]), **settings(call))
    write_line("OK")
    return exits.OK


def set_(call: Call) -> int:
    changed = settings(call)
    if "VALUE" in call.arguments:
        changed["capacity"] = amounts(call.arguments["VALUE"])
    if not changed:
        raise UsageError("set changes a capacity (gpu=8,mem=512) or one of the settings")
    with open_client(call.settings) as client:
        client.pool(call.arguments["NAME"]).set(**changed)
    write_line("OK")
    return exits.OK


def delete(call: Call) -> int:
    with open_client(call.settings) as client:
        client.pool(call.arguments["NAME"]).delete()
    write_line("OK")
    return exits.OK


def list_(call: Call) -> int:
    from raftkv.recipes.pool import list_pools
    from raftkv.recipes.verbs import blocking
    from raftkv.recipes.verbs import run as run_recipe

    with open_client(call.settings) as client:
        pools = run_recipe(list_pools(blocking(client)))
    if call.output == "json":
        write_json([pool._asdict() for pool in pools])
        return exits.OK
    rows = [
        (
            pool.name,
            ", ".join(f"{name} {pool.used.get(name, 0)}/{most}" for name, most in pool.capacity.items()),
            pool.granted,
            pool.waiting,
        )
        for pool in pools
    ]
    write_table(("pool", "used", "granted", "waiting"), rows)
    return exits.OK


def acquire(call: Call) -> int:
    grant: Grant | None = None
    with open_client(call.settings) as client:
        try:
            grant = ask(call, client)
            code = hold(call, grant)
        finally:
            was_lost = grant is not None and give_back(grant)
    if was_lost:
        sys.stderr.write("raftkv pool: lock_lost: the grant was taken back, or its session ended\n")
        return exits.FAILED
    return code


def ask(call: Call, client: "Client") -> "Grant":
    return client.pool(call.arguments["NAME"]).acquire(
        amounts(call.arguments["VALUE"]),
        also=named_amounts(call.text("--also"), "--also") if "--also" in call.options else None,
        tenant=call.text("--tenant"),
        klass=call.text("--as"),
        weight=call.number("--weight"),
        staleness=call.seconds("--staleness", 0.0),
        max_wait=call.seconds("--max-wait", 0.0),
        max_run=call.seconds("--max-run", 0.0),
        timeout=call.options.get("--wait"),
        ttl=call.seconds("--ttl", 10.0),
        request_id=call.text("--id"),
    )


def hold(call: Call, grant: "Grant") -> int:
    if not call.rest:
        hold_until_told(call, {"id": grant.id, "token": grant.token}, f"{grant.id} {grant.token}", grant.lost)
        return exits.OK
    environment = {
        "RAFTKV_GRANT_ID": grant.id,
        "RAFTKV_GRANT_KEY": os.fsdecode(grant.key),
        "RAFTKV_GRANT_TOKEN": str(grant.token),
    }
    return run_while_held(
        call.rest, environment, grant.lost, call.seconds("--grace", GRACE_SECONDS), notice=grant.ending
    )


def give_back(grant: "Grant") -> bool:
    """Whether it had been lost."""
    try:
        grant.release()
    except LockLost:
        return True
    return False


def release(call: Call) -> int:
    token = call.arguments.get("VALUE", "0")
    if not token.isdecimal():
        raise UsageError(f"TOKEN {token!r} is not a whole number")
    with open_client(call.settings) as client:
        client.pool("any").release(call.arguments["NAME"], int(token))
    write_line("OK")
    return exits.OK


def queue(call: Call) -> int:
    from raftkv.recipes.pool import list_requests
    from raftkv.recipes.verbs import blocking
    from raftkv.recipes.verbs import run as run_recipe

    with open_client(call.settings) as client:
        name = call.arguments.get("NAME")
        rows = run_recipe(list_requests(blocking(client))) if name is None else client.pool(name).queue()
    if call.output == "json":
        write_json([row._asdict() for row in rows])
        return exits.OK
    write_table(
        ("id", "state", "token", "weight", "waited", "tenant", "wants", "why"),
        [
            (
                row.id,
                row.state,
                row.token or "",
                "" if row.weight is None else f"{row.weight:g}",
                f"{row.waited:.1f}",
                row.tenant,
                wants(row),
                row.reason or "",
            )
            for row in rows
        ],
    )
    return exits.OK


def wants(row: "PoolRequest") -> str:
    return "; ".join(
        f"{pool}: " + ", ".join(f"{amount} {resource}" for resource, amount in demand.items())
        for pool, demand in row.demand.items()
    )


def why(call: Call) -> int:
    with open_client(call.settings) as client:
        row = client.pool("any").why(call.arguments["NAME"])
    if call.output == "json":
        write_json(row._asdict())
    elif row.state != "waiting":
        write_line(f"{row.state} with token {row.token}, after {row.waited:.1f} s")
    else:
        details = ", ".join(f"{name} {value}" for name, value in row.details.items())
        write_line(f"waiting for {row.waited:.1f} s: {row.reason}" + (f" ({details})" if details else ""))
        write_line(f"weight {row.weight:g}, {row.ahead} ahead")
    return exits.OK


_SETTINGS = (*SETTINGS, "--class", "--quota", "--backfill")
ACTIONS = {
    "create": Action(create, ("NAME", "CAPACITY"), options=_SETTINGS),
    "set": Action(set_, ("NAME",), ("CAPACITY",), options=_SETTINGS),
    "list": Action(list_),
    "acquire": Action(
        acquire,
        ("NAME", "DEMAND"),
        options=(
            *("--also", "--tenant", "--as", "--weight", "--staleness", "--max-wait", "--max-run"),
            *("--wait", "--ttl", "--grace", "--id"),
        ),
        command=True,
    ),
    "release": Action(release, ("ID",), ("TOKEN",)),
    "queue": Action(queue, (), ("NAME",)),
    "why": Action(why, ("ID",)),
    "delete": Action(delete, ("NAME",)),
}


def on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("is neither on nor off")
    return text == "on"


WEIGHT = integer_at_least(0, 10**9)

VERB = Verb(
    name="pool",
    summary="share machines, memory and licences by weight",
    description=(
        "create NAME gpu=8,mem=512 makes a pool, set changes it while it is used. acquire NAME gpu=2 -- COMMAND waits for two of it and runs COMMAND, which "
        "gets SIGTERM as the notice before its longest run is over and is ended when the grant is taken back (exit code 1; 4: not granted). queue shows "
        "who holds and who waits, why ID says why. list, release ID [TOKEN] and delete NAME do as they say."
    ),
    run=run,
    arguments=(
        Argument("ACTION", "create, set, list, acquire, release, queue, why or delete"),
        Argument("NAME", "the pool; release and why: the request's id", required=False),
        Argument("VALUE", "create, set: the capacity; acquire: the demand; release: the token", required=False),
    ),
    options=(
        Option("--threshold", "create, set: the weight that a request has to reach", "POINTS", convert=WEIGHT),
        Option("--age-weight", "create, set: what an hour of waiting adds", "POINTS", convert=WEIGHT),
        Option("--staleness-weight", "create, set: what an hour of staleness adds", "POINTS", convert=WEIGHT),
        Option("--class", "create, set: weights of classes, as in urgent=100,batch=0", "CLASS=POINTS,..."),
        Option("--quota", "create, set: per tenant at a time, as in ann:gpu=2;*:gpu=4", "TENANT:RESOURCE=AMOUNT;..."),
        Option(
            "--backfill", "create, set: let pass the head who cannot delay it: on or off", "on|off", convert=on_or_off
        ),
        Option("--max-wait", "the longest wait; acquire: of this request", "SECONDS", convert=positive_seconds),
        Option("--max-run", "the longest run; acquire: of this request", "SECONDS", convert=positive_seconds),
        Option("--notice", "create, set: between the notice and the end of a run", "SECONDS", convert=positive_seconds),
        Option("--also", "acquire: together with this, of other pools", "POOL:RESOURCE=AMOUNT;..."),
        Option("--tenant", "acquire: on whose quota", "TENANT"),
        Option("--as", "acquire: as a request of this class", "CLASS"),
        Option("--weight", "acquire: points to begin with (default 0)", "POINTS", convert=WEIGHT),
        Option("--staleness", "acquire: how old what is to be merged is", "SECONDS", convert=positive_seconds),
        Option(
            "--wait", "acquire: give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds
        ),
        Option("--ttl", "acquire: how long the grant outlives us (default 10)", "SECONDS", convert=positive_seconds),
        Option("--grace", "acquire: after a loss, to SIGKILL (default 5)", "SECONDS", convert=positive_seconds),
        Option("--id", "acquire: the id of the request; the same id is the same request", "ID"),
    ),
    examples=(
        ("raftkv pool create merge machines=18,mem=2048 --age-weight 10 --max-run 7200 --notice 60", "a pool"),
        ("raftkv pool acquire merge machines=1,mem=64 -- ./merge.sh model-7", "runs when it is its turn"),
        ("raftkv pool why 326963a0-77aa01c2", "why does it wait?"),
    ),
    writes=True,
    takes_command=True,
)
