"""`raftkv compact REVISION`: let go of history."""

from raftkv_cli import exits
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, UsageError, Verb, integer_at_least


def run(call: Call) -> int:
    try:
        revision = integer_at_least(1)(call.arguments["REVISION"])
    except ValueError as error:
        raise UsageError(f"REVISION {call.arguments['REVISION']} {error}") from None
    with open_client(call.settings) as client:
        reached = client.compact(revision)
    if call.output == "json":
        write_json({"compacted": revision, "revision": reached})
    elif call.output == "table":
        write_table(("compacted", "revision"), [(revision, reached)])
    else:
        write_line(str(reached))
    return exits.OK


VERB = Verb(
    name="compact",
    summary="let go of history before a revision",
    description=(
        "Prints the store's revision. Reads and watches at REVISION and later still work. The cluster compacts by itself, by age and by\n"
        "number of revisions; this is for when room is wanted sooner."
    ),
    run=run,
    arguments=(Argument("REVISION", "the oldest revision that can be read from now on"),),
    examples=(("raftkv compact 120000", "history begins at revision 120000"),),
    writes=True,
)
