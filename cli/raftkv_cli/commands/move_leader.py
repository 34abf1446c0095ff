"""`raftkv move-leader [NAME]`: hand leadership over, for maintenance."""

from raftkv_cli import exits
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Verb


def run(call: Call) -> int:
    with open_client(call.settings) as client:
        leader = client.move_leader(call.arguments.get("NAME", ""))
    if call.output == "json":
        write_json({"leader": leader["name"], "id": leader["id"], "address": leader["address"]})
    elif call.output == "table":
        write_table(("leader", "id", "address"), [(leader["name"], leader["id"], leader["address"])])
    else:
        write_line(str(leader["name"]))
    return exits.OK


VERB = Verb(
    name="move-leader",
    summary="hand leadership to another member",
    description="Prints the name of the new leader. Without a name the member that is most caught up takes over.",
    run=run,
    arguments=(Argument("NAME", "the member that shall lead", required=False),),
    examples=(("raftkv move-leader n2", "before maintenance of the leader"),),
    writes=True,
)
