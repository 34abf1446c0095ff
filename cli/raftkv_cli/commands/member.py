"""`raftkv member list|add|remove|promote|demote|replace`: who belongs to the cluster, and who votes.

Each action is one change of the membership; several names in one command are changed together, at one moment (joint consensus).
"""

from typing import Callable

from raftkv.client.sync import Client
from raftkv_cli import exits
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb

COLUMNS = ("name", "id", "role", "address", "peer_address")


def run(call: Call) -> int:
    action = call.arguments["ACTION"]
    handler, fewest, most, usage = ACTIONS.get(action, (None, 0, 0, ""))
    if handler is None:
        raise UsageError(f"{action!r} is none of {', '.join(ACTIONS)}")
    words = [call.arguments[name] for name in NAMES if name in call.arguments]
    if not fewest <= len(words) <= most:
        raise UsageError(f"member {action} takes {usage or 'no arguments'}")
    with open_client(call.settings) as client:
        return handler(call, client, words)


def _list(call: Call, client: Client, words: list[str]) -> int:
    rows = [
        {
            "name": member.name,
            "id": member.id,
            "role": "voter" if member.voter else "learner" if member.learner else "announced",
            "address": member.address,
            "peer_address": member.peer_address,
        }
        for member in sorted(client.members(), key=lambda member: member.name)
    ]
    if call.output == "json":
        write_json(rows)
    else:
        write_table(COLUMNS, [tuple(str(row[column]) for column in COLUMNS) for row in rows])
    return exits.OK


def _add(call: Call, client: Client, words: list[str]) -> int:
    name, peer_address = words
    member_id = client.member_add(name, peer_address, learner=call.flag("--learner"))
    if call.output == "json":
        write_json({"name": name, "id": member_id, "peer_address": peer_address})
    else:
        write_line(f"{name} {member_id}")
    return exits.OK


def _remove(call: Call, client: Client, words: list[str]) -> int:
    client.member_remove(*words, force=call.flag("--force"))
    return _done(call)


def _promote(call: Call, client: Client, words: list[str]) -> int:
    client.member_change(promote=words, force=call.flag("--force"))
    return _done(call)


def _demote(call: Call, client: Client, words: list[str]) -> int:
    client.member_change(demote=words, force=call.flag("--force"))
    return _done(call)


def _replace(call: Call, client: Client, words: list[str]) -> int:
    """Old and new names, each half of the words: `replace n1,n2 n4,n5`."""
    old, new = (text.split(",") for text in words)
    client.member_change(promote=new, remove=old, force=call.flag("--force"))
    return _done(call)


def _done(call: Call) -> int:
    if call.output == "json":
        write_json({"ok": True})
    else:
        write_line("OK")
    return exits.OK


NAMES = ("NAME", "SECOND", *(f"NAME{number}" for number in range(3, 10)))
Handler = Callable[[Call, Client, list[str]], int]
ACTIONS: dict[str, tuple[Handler, int, int, str]] = {
    "list": (_list, 0, 0, ""),
    "add": (_add, 2, 2, "a name and a peer address"),
    "remove": (_remove, 1, len(NAMES), "names"),
    "promote": (_promote, 1, len(NAMES), "names of learners"),
    "demote": (_demote, 1, len(NAMES), "names of voters"),
    "replace": (_replace, 2, 2, "names of voters and names of learners, each separated by commas"),
}

VERB = Verb(
    name="member",
    summary="list, add, remove, promote and replace members",
    description=(
        "Actions: list; add NAME HOST:PEERPORT; remove NAME...; promote NAME...; demote NAME...; replace OLD,... NEW,...\n"
        "Several names are changed at one moment. `raftkv serve --join` adds its member by itself."
    ),
    run=run,
    arguments=(
        Argument("ACTION", f"one of {', '.join(ACTIONS)}"),
        Argument("NAME", "a member", required=False),
        Argument("SECOND", "another one, or the peer address for add", required=False),
        *(Argument(name, "another one", required=False) for name in NAMES[2:]),
    ),
    options=(
        Option("--learner", "add: it never gets a vote by itself"),
        Option("--force", "even if the members that answer are no quorum afterwards"),
    ),
    examples=(
        ("raftkv member list", "who belongs to the cluster"),
        ("raftkv member remove n3", "n3 stops and never comes back under its id"),
        ("raftkv member replace n1,n2 n4,n5", "two votes move at one moment; n4 and n5 joined before"),
    ),
    writes=True,
)
