"""`raftkv auth enable|disable|status`: whether everybody has to log in."""

from raftkv_cli import exits
from raftkv_cli.actions import Action, perform, say_done
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Verb


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def enable(call: Call) -> int:
    with open_client(call.settings) as client:
        client.auth_enable()
    return say_done(call)


def disable(call: Call) -> int:
    with open_client(call.settings) as client:
        client.auth_disable()
    return say_done(call)


def status(call: Call) -> int:
    with open_client(call.settings) as client:
        found = client.auth_status()
    if call.output == "json":
        write_json({"enabled": found.enabled, "revision": found.revision})
    elif call.output == "table":
        write_table(("enabled", "revision"), [(str(found.enabled).lower(), found.revision)])
    else:
        write_line("enabled" if found.enabled else "disabled")
    return exits.OK


ACTIONS = {"enable": Action(enable), "disable": Action(disable), "status": Action(status)}

VERB = Verb(
    name="auth",
    summary="have everybody log in, or nobody",
    description="Actions: enable, once there is a user root with the role root; disable; status. See docs/auth.md.",
    run=run,
    arguments=(Argument("ACTION", f"one of {', '.join(ACTIONS)}"),),
    examples=(
        ("raftkv auth enable", "from here on everything needs --user"),
        ("raftkv --user root auth disable", "everybody may do everything again"),
    ),
    writes=True,
)
