"""`raftkv version` (and `raftkv --version`)."""

import sys

from raftkv_cli import exits
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Call, Verb


def run(call: Call) -> int:
    from raftkv import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    if call.output == "json":
        write_json({"raftkv": __version__, "python": python})
    elif call.output == "table":
        write_table(("raftkv", "python"), [(__version__, python)])
    else:
        write_line(f"raftkv {__version__}")
    return exits.OK


VERB = Verb(
    name="version",
    summary="print the version",
    run=run,
    uses_cluster=False,
    examples=(("raftkv version -o json", "for scripts"),),
)
