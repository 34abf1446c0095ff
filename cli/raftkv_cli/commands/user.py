"""`raftkv user add|delete|get|list|passwd|grant-role|revoke-role`: who may log in, and with which roles. The words are etcdctl's."""

from raftkv_cli import exits
from raftkv_cli.actions import Action, perform, say_done, words_of
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.secrets import new_password
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def add(call: Call) -> int:
    words = words_of(call)
    name, colon, given = words[0].partition(":")
    password: str | None = given
    if call.flag("--no-password"):
        if colon or "--new-user-password" in call.options:
            raise UsageError("--no-password and a password exclude each other")
        password = None
    elif not colon:
        password = password_for(call, name)
    with open_client(call.settings) as client:
        client.user_add(name, password)
    return say_done(call)


def change_password(call: Call) -> int:
    words = words_of(call)
    password = password_for(call, words[0])
    with open_client(call.settings) as client:
        client.user_change_password(words[0], password)
    return say_done(call)


def password_for(call: Call, name: str) -> str:
    if "--new-user-password" in call.options:
        return call.text("--new-user-password")
    return new_password(name)


def delete(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        client.user_delete(words[0])
    return say_done(call)


def get(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        roles = client.user_get(words[0])
    if call.output == "json":
        write_json({"name": words[0], "roles": roles})
    elif call.output == "table":
        write_table(("name", "roles"), [(words[0], ", ".join(roles))])
    else:
        for role in roles:
            write_line(role)
    return exits.OK


def list_all(call: Call) -> int:
    with open_client(call.settings) as client:
        names = client.user_list()
    if call.output == "json":
        write_json(names)
    elif call.output == "table":
        write_table(("name",), [(name,) for name in names])
    else:
        for name in names:
            write_line(name)
    return exits.OK


def grant_role(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        client.user_grant_role(*words)
    return say_done(call)


def revoke_role(call: Call) -> int:
    words = words_of(call)
    with open_client(call.settings) as client:
        client.user_revoke_role(*words)
    return say_done(call)


ACTIONS = {
    "add": Action(add, ("NAME",), options=("--new-user-password", "--no-password")),
    "delete": Action(delete, ("NAME",)),
    "get": Action(get, ("NAME",)),
    "list": Action(list_all),
    "passwd": Action(change_password, ("NAME",), options=("--new-user-password",)),
    "grant-role": Action(grant_role, ("NAME", "ROLE")),
    "revoke-role": Action(revoke_role, ("NAME", "ROLE")),
}

VERB = Verb(
    name="user",
    summary="users: who may log in, and with which roles",
    description=(
        "Actions: add NAME[:PASSWORD]; delete NAME; get NAME; list; passwd NAME; grant-role NAME ROLE; revoke-role NAME ROLE.\n"
        "A new password is asked for on the terminal, or read as a line from standard input. docs/auth.md tells how to begin."
    ),
    run=run,
    arguments=(
        Argument("ACTION", f"one of {', '.join(ACTIONS)}"),
        Argument("NAME", "the user", required=False),
        Argument("VALUE", "the role, for grant-role and revoke-role", required=False),
    ),
    options=(
        Option("--new-user-password", "add, passwd: the new password, instead of asking for it", "PASSWORD"),
        Option("--no-password", "add: the user can never have a password, and comes with a client certificate"),
    ),
    examples=(
        ("raftkv user add root", "the first user; its password is asked for"),
        ("raftkv user grant-role root root", "the role that may do everything"),
        ("raftkv --user root user list", "once authentication is enabled"),
    ),
    writes=True,
)
