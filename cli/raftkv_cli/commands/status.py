"""`raftkv status`: one row per member, also for those that do not answer."""

from typing import Any, Mapping

from raftkv_cli import exits
from raftkv_cli.connect import open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Call, Verb

FIELDS = (
    "name",
    "id",
    "endpoint",
    "role",
    "term",
    "leader",
    "commit_index",
    "applied_index",
    "revision",
    "db_size_bytes",
    "version",
    "priority",
    "errors",
)
"""What `-o json` promises of every member; more may follow."""
HEADINGS = (
    "name",
    "endpoint",
    "role",
    "term",
    "leader",
    "commit",
    "applied",
    "revision",
    "db size",
    "version",
    "errors",
)
UNREACHABLE = "unreachable"
KNOWN_OF_ANY = ("name", "id", "endpoint", "role", "errors")
"""What is known of a member that does not answer."""


def run(call: Call) -> int:
    with open_client(call.settings) as client:
        members = [complete(member) for member in client.status()]
    if call.output == "json":
        write_json(members)
    elif call.output == "table":
        write_table(HEADINGS, [table_row(member) for member in members])
    else:
        for member in members:
            write_line(f"{member['name'] or '-'} {member['endpoint'] or '-'} {member['role']}")
    answered = any(member["role"] != UNREACHABLE for member in members)
    return exits.OK if answered else exits.NOT_DONE


def complete(member: Mapping[str, Any]) -> dict[str, Any]:
    """All promised fields, null where a member that is away cannot say, and whatever else it said."""
    document = {field: member.get(field) for field in FIELDS}
    document["role"] = document["role"] or UNREACHABLE
    document["errors"] = document["errors"] or []
    if document["role"] == UNREACHABLE:
        document.update((field, None) for field in FIELDS if field not in KNOWN_OF_ANY)
    return {**document, **{name: value for name, value in member.items() if name not in document}}


def table_row(member: Mapping[str, Any]) -> list[str]:
    fields = ["name", "endpoint", "role", "term", "leader", "commit_index", "applied_index", "revision"]
    cells = [cell(member[field]) for field in fields]
    errors = "; ".join(str(error) for error in member["errors"])
    return [*cells, size_text(member["db_size_bytes"]), cell(member["version"]), errors]


def cell(value: object) -> str:
    if isinstance(value, Mapping):
        value = value.get("name") or value.get("id")
    return "-" if value is None or value == "" else str(value)


def size_text(size_bytes: object) -> str:
    if not isinstance(size_bytes, int):
        return "-"
    size, unit = float(size_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


VERB = Verb(
    name="status",
    summary="what every member says about itself",
    description="Asks every member of the cluster, the ones in --endpoints and those that they know. Exit 0 if any answered, 4 if none did.",
    run=run,
    examples=(
        ("raftkv status", "a table"),
        ("raftkv status -o json", "a list, one object per member"),
    ),
    default_output="table",
)
