"""`raftkv snapshot save|status|restore`: a member's data in one checked file, and a new cluster out of it.

`save` asks one member over the network; the other two work on files, and need what the daemon needs.
"""

from pathlib import Path
from typing import Any

from raftkv.errors import MissingExtra
from raftkv_cli import exits
from raftkv_cli.connect import only_raftkv, open_client
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Failed, Option, UsageError, Verb

SERVER_MODULES = frozenset({"uvloop", "aiohttp", "lmdb", "prometheus_client"})


def run(call: Call) -> int:
    handler = ACTIONS.get(call.arguments["ACTION"])
    if handler is None:
        raise UsageError(f"{call.arguments['ACTION']!r} is none of {', '.join(ACTIONS)}")
    try:
        return handler(call)
    except ModuleNotFoundError as error:
        if error.name not in SERVER_MODULES:
            raise
        raise MissingExtra(f"raftkv snapshot needs {error.name}: pip install 'raftkv[server]'") from None


def save(call: Call) -> int:
    from raftkv.store.backup import BackupWriter

    endpoints = call.settings.endpoints
    only_raftkv(call.settings, "snapshot save", "`etcdctl snapshot save`")
    if len(endpoints) != 1:
        raise UsageError("snapshot save takes one endpoint: the member whose data is saved (--endpoints HOST:PORT)")
    writer = BackupWriter(call.arguments["FILE"])
    try:
        with open_client(call.settings) as client:
            made = client.backup(writer.write)
    except BaseException:
        writer.abandon()
        raise
    writer.finish()
    shown = {key: made[key] for key in ("revision", "index", "size_bytes", "cluster_name")}
    if call.output == "json":
        write_json({"file": call.arguments["FILE"], **shown})
    else:
        write_line(f"{call.arguments['FILE']}: revision {made['revision']}, {made['size_bytes']} bytes")
    return exits.OK


def status(call: Call) -> int:
    from raftkv.store.backup import inspect

    info = inspect(existing(call.arguments["FILE"]))
    document: dict[str, Any] = {
        "revision": info.revision,
        "records": info.records,
        "size_bytes": info.size_bytes,
        "index": info.index,
        "compact_revision": info.compact_revision,
        "cluster_name": info.cluster_name,
        "cluster_id": f"{info.cluster_id:x}",
        "members": info.members,
        "sha256": info.sha256,
    }
    if call.output == "json":
        write_json(document)
    else:
        document["members"] = " ".join(info.members)
        write_table(("what", "value"), [(key, str(value)) for key, value in document.items()])
    return exits.OK


def restore(call: Call) -> int:
    from raftkv.daemon.recovery import restore as restore_backup
    from raftkv.limits import DEFAULT_LIMITS

    missing = [name for name in ("--data-dir", "--name") if not call.text(name)]
    if missing:
        raise UsageError(f"snapshot restore needs {' and '.join(missing)}")
    done = restore_backup(
        Path(existing(call.arguments["FILE"])),
        Path(call.text("--data-dir")).absolute(),
        name=call.text("--name"),
        cluster_name=call.settings.cluster_name,
        limits=DEFAULT_LIMITS,
        keep_users=not call.flag("--without-users"),
    )
    member = done.membership
    if call.output == "json":
        write_json(
            {
                "name": member.name,
                "id": member.node_id,
                "cluster_name": member.cluster_name,
                "revision": done.revision,
                "data_dir": str(call.text("--data-dir")),
            }
        )
    else:
        write_line(
            f"{member.name} is a new cluster {member.cluster_name!r} at revision {done.revision}:"
            f" raftkv serve --name {member.name} --data-dir {call.text('--data-dir')} --cluster-name {member.cluster_name} ..."
        )
    return exits.OK


def existing(path: str) -> str:
    if not Path(path).is_file():
        raise Failed(f"there is no file {path}")
    return path


ACTIONS = {"save": save, "status": status, "restore": restore}

VERB = Verb(
    name="snapshot",
    summary="save a member's data, look into a saved file, make a new cluster of it",
    description=(
        "save FILE fetches the data of the member at --endpoints as of now; status FILE verifies it and says what is in it;\n"
        "restore FILE makes a data directory of it: a new cluster of one member, which others --join. Its revision is raised\n"
        "by 10^9, so that no lock of the old cluster is valid in it."
    ),
    run=run,
    arguments=(Argument("ACTION", f"one of {', '.join(ACTIONS)}"), Argument("FILE", "the file")),
    options=(
        Option("--data-dir", "restore: the new data directory, which must be empty or not exist", "DIR"),
        Option("--name", "restore: the name of the member that will use it", "NAME"),
        Option("--without-users", "restore: without users and roles, and nobody has to log in"),
    ),
    examples=(
        ("raftkv snapshot save backup.rkv --endpoints n1:2379", "everything that n1 has, in one file"),
        ("raftkv snapshot status backup.rkv", "verify it"),
        (
            "raftkv snapshot restore backup.rkv --data-dir /var/lib/raftkv --name n1 --cluster-name prod",
            "begin anew with it",
        ),
    ),
)
