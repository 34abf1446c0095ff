"""`raftkv defrag [--all]`: have members write their stores anew without free pages. One after the other, because each copies its data."""

from typing import Any

from raftkv.errors import RaftKVError
from raftkv_cli import exits
from raftkv_cli.commands.status import size_text
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Call, Failed, Option, Verb

HEADINGS = ("endpoint", "before", "after", "seconds", "error")


def run(call: Call) -> int:
    rows: list[dict[str, Any]] = []
    failed: list[RaftKVError] = []
    with open_client(call.settings) as client:
        endpoints = list(call.settings.endpoints)
        if call.flag("--all"):
            endpoints = [str(member["endpoint"]) for member in client.status()]
        for endpoint in endpoints:
            row = {"endpoint": endpoint, "before_bytes": None, "after_bytes": None, "seconds": None, "error": ""}
            try:
                row.update(client.defragment(endpoint))
            except RaftKVError as error:
                failed.append(error)
                row["error"] = f"{error.code}: {error.message}"
            rows.append(row)
            if call.output == "value" and not row["error"]:
                write_line(f"{endpoint} {row['before_bytes']} {row['after_bytes']} {row['seconds']}")
    if call.output == "json":
        write_json(rows)
    elif call.output == "table":
        write_table(HEADINGS, [table_row(row) for row in rows])
    if not failed:
        return exits.OK
    if len(rows) == 1:
        raise failed[0]
    raise Failed("; ".join(f"{row['endpoint']}: {row['error']}" for row in rows if row["error"]))


def table_row(row: dict[str, Any]) -> list[str]:
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    return [row["endpoint"], size_text(row["before_bytes"]), size_text(row["after_bytes"]), seconds, row["error"]]


VERB = Verb(
    name="defrag",
    summary="give the file system the free pages of members' stores",
    description=(
        "Free pages are reused without it: this is for a store that has shrunk for good. The members at --endpoints write their data into\n"
        "a new file each, one after the other, and go on reading and writing meanwhile; room for a second copy is needed."
    ),
    run=run,
    options=(Option("--all", "every member of the cluster, instead of those at --endpoints"),),
    examples=(
        ("raftkv defrag --endpoints n1:2379", "one member"),
        ("raftkv defrag --all -o json", "all of them, as a list"),
    ),
    default_output="table",
)
