"""`raftkv role add|delete|get|list|grant-permission|revoke-permission`: what users with a role may read and write."""

from typing import TYPE_CHECKING, Any

from raftkv_cli import exits
from raftkv_cli.actions import Action, perform, say_done, words_of
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.output import named_bytes, readable, write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb

if TYPE_CHECKING:
    from raftkv.client.auth_requests import Kind, Permission

KINDS: "tuple[Kind, ...]" = ("read", "write", "readwrite")
_OPEN_END = b"\0"


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def add(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        client.role_add(words[0])
    return say_done(call)


def delete(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        client.role_delete(words[0])
    return say_done(call)


def get(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        permissions = client.role_get(words[0])
    if call.output == "json":
        write_json({"name": words[0], "permissions": [document(permission) for permission in permissions]})
    elif call.output == "table":
        write_table(("kind", "range"), [(permission.kind, shown(permission)) for permission in permissions])
    else:
        for permission in permissions:
            write_line(f"{permission.kind} {shown(permission)}")
    return exits.OK


def list_all(call: Call) -> int:
    with open_client(call.settings) as client:
        names = client.role_list()
    if call.output == "json":
        write_json(names)
    elif call.output == "table":
        write_table(("name",), [(name,) for name in names])
    else:
        for name in names:
            write_line(name)
    return exits.OK


def grant(call: Call) -> int:
    words = words_of(call)
    role, kind = words[:2]
    chosen = next((known for known in KINDS if known == kind), None)
    if chosen is None:
        raise UsageError(f"KIND {kind!r} is none of {', '.join(KINDS)}")
    with open_client(call.settings) as client:
        client.role_grant_permission(role, chosen, **bounds(call, words[2:]))
    return say_done(call)


def revoke(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        client.role_revoke_permission(words[0], **bounds(call, words[1:]))
    return say_done(call)


def bounds(call: Call, words: list[str]) -> dict[str, Any]:
    """KEY [RANGE_END] and the options, as the client takes a range. Raises UsageError."""
    if len(words) == 2 and (call.flag("--prefix") or call.flag("--from-key")):
        raise UsageError("RANGE_END, --prefix and --from-key exclude each other")
    if call.flag("--prefix") and call.flag("--from-key"):
        raise UsageError("--prefix and --from-key exclude each other")
    if call.flag("--prefix"):
        return {"prefix": key_bytes(words[0]) if words[0] else b""}
    key = key_bytes(words[0]) if words[0] or not call.flag("--from-key") else _OPEN_END
    if call.flag("--from-key"):
        return {"key": key, "range_end": _OPEN_END}
    return {"key": key, "range_end": key_bytes(words[1], "RANGE_END") if len(words) == 2 else None}


def shown(permission: "Permission") -> str:
    """A range for human eyes."""
    key, end = permission.key, permission.range_end
    if not end:
        return readable(key)
    if end == _OPEN_END:
        return "everything" if key == _OPEN_END else f"from {readable(key)} on"
    from raftkv.wire.commands import prefix_range_end

    return (
        f"{readable(key)}* (prefix)"
        if prefix_range_end(key) == end
        else f"from {readable(key)} to before {readable(end)}"
    )


def document(permission: "Permission") -> dict[str, Any]:
    return {
        "kind": permission.kind,
        **named_bytes("key", permission.key),
        **named_bytes("range_end", permission.range_end),
    }


ACTIONS = {
    "add": Action(add, ("ROLE",)),
    "delete": Action(delete, ("ROLE",)),
    "get": Action(get, ("ROLE",)),
    "list": Action(list_all),
    "grant-permission": Action(grant, ("ROLE", "KIND", "KEY"), ("RANGE_END",), ("--prefix", "--from-key")),
    "revoke-permission": Action(revoke, ("ROLE", "KEY"), ("RANGE_END",), ("--prefix", "--from-key")),
}

VERB = Verb(
    name="role",
    summary="roles: what their users may read and write",
    description=(
        "Actions: add ROLE; delete ROLE; get ROLE; list; grant-permission ROLE KIND KEY [RANGE_END]; revoke-permission ROLE KEY [RANGE_END].\n"
        "KIND is read, write or readwrite. A permission is taken back with the range that it was granted for."
    ),
    run=run,
    arguments=(
        Argument("ACTION", f"one of {', '.join(ACTIONS)}"),
        Argument("NAME", "the role", required=False),
        Argument("VALUE", "grant-permission: KIND; revoke-permission: KEY", required=False),
        Argument("MORE", "grant-permission: KEY; revoke-permission: RANGE_END", required=False),
        Argument("FURTHER", "grant-permission: RANGE_END", required=False),
    ),
    options=(
        Option("--prefix", "all keys that begin with KEY"),
        Option("--from-key", "all keys from KEY on"),
    ),
    examples=(
        ("raftkv role add jobs", "a role that permits nothing yet"),
        ("raftkv role grant-permission jobs readwrite jobs/ --prefix", "all below jobs/"),
        ("raftkv role get jobs", "what it permits"),
    ),
    writes=True,
)
