"""`raftkv lease grant|revoke|keep-alive|ttl|list`: leases by hand and from scripts.

Ids are shown and read in hexadecimal, as etcdctl does, so that what the one prints the other takes.
"""

import sys
from time import monotonic, sleep
from typing import TYPE_CHECKING, Callable

from raftkv.errors import LeaseNotFound, RaftKVError
from raftkv_cli import exits
from raftkv_cli.connect import open_client
from raftkv_cli.leaseid import lease_name, parse_lease
from raftkv_cli.output import named_bytes, readable, write_bytes, write_json, write_line, write_table
from raftkv_cli.parse import nearest
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb

if TYPE_CHECKING:
    from raftkv import Client

RETRY_SECONDS = 0.5


def run(call: Call) -> int:
    action = call.arguments["ACTION"]
    perform = ACTIONS.get(action)
    if perform is None:
        raise UsageError(f"unknown action {action!r}{nearest(action, ACTIONS)}: grant, revoke, keep-alive, ttl or list")
    if call.flag("--once") and action != "keep-alive":
        raise UsageError("--once belongs to keep-alive")
    if call.flag("--keys") and action != "ttl":
        raise UsageError("--keys belongs to ttl")
    if action == "list" and "VALUE" in call.arguments:
        raise UsageError("list takes no more arguments")
    return perform(call)


def grant(call: Call) -> int:
    ttl = seconds(call)
    with open_client(call.settings) as client:
        granted = client.lease_grant(ttl)
    name = lease_name(granted.id)
    if call.output == "json":
        write_json({"id": name, "lease": granted.id, "ttl": granted.ttl})
    elif call.output == "table":
        write_table(("id", "ttl"), [(name, f"{granted.ttl:g}")])
    else:
        write_line(name)
    return exits.OK


def revoke(call: Call) -> int:
    lease_id = wanted_lease(call)
    with open_client(call.settings) as client:
        deleted = client.lease_revoke(lease_id)
    if call.output == "json":
        write_json({"id": lease_name(lease_id), "lease": lease_id, "deleted": deleted})
    elif call.output == "table":
        write_table(("id", "deleted"), [(lease_name(lease_id), deleted)])
    else:
        write_line("OK")
    return exits.OK


def time_to_live(call: Call) -> int:
    lease_id = wanted_lease(call)
    with open_client(call.settings) as client:
        info = client.lease_ttl(lease_id, keys=call.flag("--keys"))
    if call.output == "json":
        document = {"id": lease_name(info.id), "lease": info.id, "remaining": info.remaining, "ttl": info.ttl}
        if call.flag("--keys"):
            document["keys"] = [named_bytes("key", key) for key in info.keys]
        write_json(document)
    elif call.output == "table":
        keys = ", ".join(map(readable, info.keys))
        write_table(
            ("id", "remaining", "ttl", "keys"), [(lease_name(info.id), f"{info.remaining:g}", f"{info.ttl:g}", keys)]
        )
    else:
        write_line(f"{info.remaining:g}")
        for key in info.keys:
            write_bytes(key + b"\n")
    return exits.OK


def list_all(call: Call) -> int:
    with open_client(call.settings) as client:
        found = client.leases()
    if call.output == "json":
        write_json([{"id": lease_name(lease_id), "lease": lease_id} for lease_id in found])
    elif call.output == "table":
        write_table(("id",), [(lease_name(lease_id),) for lease_id in found])
    else:
        for lease_id in found:
            write_line(lease_name(lease_id))
    return exits.OK


def keep_alive(call: Call) -> int:
    lease_id = wanted_lease(call)
    with open_client(call.settings) as client:
        renew_for_ever(client, lease_id, call)
    return exits.OK


def renew_for_ever(client: "Client", lease_id: int, call: Call) -> None:
    """Renew at a third of the time, until the lease is gone (raises LeaseNotFound) or, with --once, renewed."""
    valid_until = 0.0
    while True:
        sent_at = monotonic()
        try:
            ttl = client.lease_keep_alive_once(lease_id)
        except LeaseNotFound:
            raise
        except RaftKVError:
            if monotonic() + RETRY_SECONDS >= valid_until:
                raise
            sleep(RETRY_SECONDS)
            continue
        valid_until = sent_at + ttl
        print_renewal(call.output, lease_id, ttl)
        if call.flag("--once"):
            return
        sleep(ttl / 3)


def print_renewal(output: str, lease_id: int, ttl: float) -> None:
    if output == "json":
        write_json({"id": lease_name(lease_id), "lease": lease_id, "ttl": ttl})
    else:
        write_line(f"{lease_name(lease_id)} {ttl:g}")
    sys.stdout.flush()


def wanted_lease(call: Call) -> int:
    text = call.arguments.get("VALUE")
    if text is None:
        raise UsageError(f"{call.arguments['ACTION']} needs the ID of a lease")
    try:
        return parse_lease(text)
    except ValueError as error:
        raise UsageError(f"ID {text!r} {error}") from None


def seconds(call: Call) -> float:
    text = call.arguments.get("VALUE")
    if text is None:
        raise UsageError("grant needs a TTL in seconds")
    try:
        ttl = float(text)
    except ValueError:
        ttl = 0.0
    if not 0 < ttl < float("inf"):
        raise UsageError(f"TTL {text!r} is no number of seconds above 0")
    return ttl


ACTIONS: dict[str, Callable[[Call], int]] = {
    "grant": grant,
    "revoke": revoke,
    "keep-alive": keep_alive,
    "ttl": time_to_live,
    "list": list_all,
}

VERB = Verb(
    name="lease",
    summary="grant, keep alive and end leases",
    description=(
        "grant TTL prints the id of a lease that expires after so many seconds, with the keys that were put with --lease. keep-alive ID "
        "renews it until Ctrl-C, ttl ID tells what is left, revoke ID ends it now. Ids are hexadecimal."
    ),
    run=run,
    arguments=(
        Argument("ACTION", "grant, revoke, keep-alive, ttl or list"),
        Argument("VALUE", "the TTL in seconds for grant, else the ID", required=False),
    ),
    options=(
        Option("--once", "keep-alive: renew once and end"),
        Option("--keys", "ttl: also print the keys of the lease"),
    ),
    examples=(
        ("raftkv lease grant 60", "prints an id such as 326963a02758b52a"),
        ("raftkv put worker/7 alive --lease 326963a02758b52a", "a key that ends with it"),
        ("raftkv lease keep-alive 326963a02758b52a", "until Ctrl-C"),
        ("raftkv lease ttl 326963a02758b52a --keys", "what is left, and what hangs on it"),
    ),
    writes=True,
)
