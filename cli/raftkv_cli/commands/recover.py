"""`raftkv recover`: after the loss of a quorum, make a survivor's data the only member of a new cluster. Offline, asked twice."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Sequence

from raftkv.client.sync import Client
from raftkv.client.tls import Tls
from raftkv.errors import MissingExtra, RaftKVError, UserEmpty
from raftkv_cli import exits
from raftkv_cli.output import write_json, write_line
from raftkv_cli.parse import GLOBAL_OPTIONS
from raftkv_cli.settings import tls_of
from raftkv_cli.spec import Call, Failed, Option, UsageError, Verb

if TYPE_CHECKING:
    from raftkv.daemon.recovery import Recovery, Survivor

SERVER_MODULES = frozenset({"uvloop", "aiohttp", "lmdb", "prometheus_client"})
ASK_SECONDS = 2.0
TLS_OPTIONS = ("--cacert", "--cert", "--key", "--insecure-skip-tls-verify")


def run(call: Call) -> int:
    try:
        from raftkv.daemon import recovery
        from raftkv.limits import DEFAULT_LIMITS
    except ModuleNotFoundError as error:
        if error.name not in SERVER_MODULES:
            raise
        raise MissingExtra(f"raftkv recover needs {error.name}: pip install 'raftkv[server]'") from None
    if not call.text("--data-dir"):
        raise UsageError("--data-dir is required: the data directory of the member that survived")
    path = Path(call.text("--data-dir")).absolute()
    survivor = recovery.look(path, DEFAULT_LIMITS)
    refuse_if_it_lives(survivor, given_tls(call))
    if not call.flag("--yes"):
        confirm(survivor, path)
    report(call, recovery.recover(path, DEFAULT_LIMITS))
    return exits.OK


def given_tls(call: Call) -> Tls | None:
    """What was said of TLS, as for verbs that talk to a cluster. Raises UsageError."""
    try:
        return tls_of(call.options, os.environ)
    except ValueError as error:
        raise UsageError(str(error)) from None


def refuse_if_it_lives(survivor: "Survivor", tls: Tls | None) -> None:
    """A cluster that has a leader needs no recovery, and would go on beside the new one. Raises Failed."""
    addresses = [address for _, address in survivor.members if address]
    if not addresses:
        return
    # Whether its ports speak TLS is not in the data. To be told that it lives, whoever says so need not be believed.
    refuse_if_it_answers(survivor, addresses, tls)
    if tls is None:
        refuse_if_it_answers(survivor, addresses, Tls(verify=False))


def refuse_if_it_answers(survivor: "Survivor", addresses: Sequence[str], tls: Tls | None) -> None:
    cluster_name = survivor.membership.cluster_name
    with Client(",".join(addresses), cluster_name=cluster_name, timeout=ASK_SECONDS, tls=tls) as client:
        try:
            rows = client.status()
        except RaftKVError:
            rows = []
        alive = is_answered(client)
    for row in rows:
        if tls is not None and any("certificate" in error for error in row["errors"]):
            raise Failed(
                f"somebody speaks TLS at {row['endpoint']}, and whether the cluster lives cannot be seen"
                f" ({row['errors'][0]}): give --cacert, --cert and --key. Nothing was changed"
            )
        if row["role"] == "leader":
            raise Failed(
                f"the cluster lives: {row['name']} at {row['endpoint']} leads it. Nothing was changed; replace lost members"
                " with `raftkv member remove` and `raftkv serve --join`"
            )
    if alive:
        raise Failed("the cluster lives: a majority of it answers reads. Nothing was changed")


def is_answered(client: "Client") -> bool:
    """Whether a quorum confirms a read: also during an election, and by a leader that is too slow to tell its status. Raises Failed where it wants to know who asks."""
    try:
        client.get(b"\0")
    except UserEmpty:
        raise Failed("the cluster lives, and wants to know who asks (--user). Nothing was changed") from None
    except RaftKVError:
        return False
    return True


def confirm(survivor: "Survivor", path: Path) -> None:
    """Raises Failed when it is not wanted after all."""
    member = survivor.membership
    unsure = survivor.last_index - survivor.commit_index
    sys.stderr.write(
        f"""This makes {path} the only member of a NEW cluster {member.cluster_name!r}.
- It is for a cluster whose quorum is lost for good: {survivor.voters} members voted, this is {member.name}.
- Writes that were acknowledged and that only lost members hold are lost with them.
- Its log ends at {survivor.last_index}; of that {unsure} entries are not known to be committed, and are kept.
- Other survivors must never be started with their old data again: empty them and let them --join.
- Locks, sessions and watches of the old cluster end; the revision rises by a thousand million.
- The old directory is kept beside it.
Type the member's name ({member.name}) to go on: """
    )
    sys.stderr.flush()
    answer = sys.stdin.readline().strip() if sys.stdin is not None else ""
    if answer != member.name:
        raise Failed("nothing was changed")


def report(call: Call, done: "Recovery") -> None:
    if call.output == "json":
        write_json(
            {
                "name": done.membership.name,
                "id": done.membership.node_id,
                "revision": done.revision,
                "applied_index": done.applied_index,
                "backup": str(done.backup),
            }
        )
    else:
        write_line(f"{done.membership.name} is a cluster of its own at revision {done.revision}: start it as before.")
        write_line(f"The old data is in {done.backup}")


VERB = Verb(
    name="recover",
    summary="make a survivor of a lost quorum the first member of a new cluster",
    description="Works on the data directory of a member that is not running. Asks for the member's name before it changes anything.",
    run=run,
    options=(
        Option("--data-dir", "data directory of the survivor", "DIR"),
        Option("--yes", "do not ask"),
        *(option for option in GLOBAL_OPTIONS if option.name in TLS_OPTIONS),
    ),
    examples=(
        ("raftkv recover --data-dir /var/lib/raftkv", "then start that member as before, and let others --join"),
    ),
    uses_cluster=False,
    writes=True,
)
