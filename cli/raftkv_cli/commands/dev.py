"""`raftkv dev`: a whole cluster on this machine, in the foreground, until Ctrl-C.

Only the watch over the members is here; where they live and how they start is in local_cluster.py. A member that dies is
reported with its last words while the others go on, as they would in production.
"""

import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from raftkv_cli import exits
from raftkv_cli.local_cluster import Layout, LocalCluster, Member, consecutive_ports, free_ports, load_layout
from raftkv_cli.signals import SignalInbox
from raftkv_cli.spec import Call, Failed, Option, UsageError, Verb, integer_at_least

READY_SECONDS_MAX = 60.0
DEFAULT_CLUSTER_NAME = "dev"
DEFAULT_MEMBER_COUNT = 3
DEFAULT_PORT = 2379
MEMBER_COUNT_MAX = 9
LAST_PORT = 65_535


def cluster_name(text: str) -> str:
    """Members would refuse a bad name too, but each in its own log."""
    from raftkv.daemon.settings import read_name

    return read_name(text)


def run(call: Call) -> int:
    with ExitStack() as stack:
        text = call.text("--data-dir")
        if "--data-dir" in call.options and not text:
            raise UsageError("--data-dir is empty")
        if text:
            directory = Path(text).absolute()
        else:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="raftkv-dev-", ignore_cleanup_errors=True))
            )
        layout = choose_layout(call, directory)
        inbox = stack.enter_context(SignalInbox([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]))
        cluster = stack.enter_context(LocalCluster(layout, verbose=call.flag("--verbose")))
        cluster.start()
        announce(cluster)
        return watch(cluster, inbox)


def choose_layout(call: Call, directory: Path) -> Layout:
    """The cluster that is there, or a new one as asked. Raises Failed when the two do not fit."""
    existing = load_layout(directory)
    if existing is not None:
        refuse_changes(call, existing)
        return existing
    count = call.number("--nodes", DEFAULT_MEMBER_COUNT)
    port = call.number("--port", DEFAULT_PORT)
    if port + 2 * count - 1 > LAST_PORT:
        raise UsageError(f"--port {port} leaves no room for {2 * count} ports")
    name = call.text("--cluster-name", DEFAULT_CLUSTER_NAME)
    return Layout(directory, name, consecutive_ports(port, count) if port else free_ports(count))


def refuse_changes(call: Call, existing: Layout) -> None:
    """A cluster remembers its size, ports and name; an option that says otherwise must not be ignored quietly."""
    facts = {
        "--nodes": len(existing.ports),
        "--port": existing.ports[0][0],
        "--cluster-name": existing.cluster_name,
    }
    for option, fact in facts.items():
        asked = call.options.get(option, fact)
        takes_any = option == "--port" and asked == 0
        if asked != fact and not takes_any:
            raise Failed(
                f"{option} is {asked}, but the cluster in {existing.directory} was made with {fact}; leave the option out, or take another --data-dir"
            )


def announce(cluster: LocalCluster) -> None:
    for member in cluster.members.values():
        place = member.place
        say(f"{place.name} pid={member.pid} client={place.client} peer={place.peer}")


def watch(cluster: LocalCluster, inbox: SignalInbox) -> int:
    """Say `ready` once, report deaths, return when a signal asks to end or nobody is left."""
    stop_signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    interrupted = False

    def pause(seconds: float) -> bool:
        nonlocal interrupted
        interrupted = interrupted or bool(inbox.wait(seconds) & stop_signals)
        return interrupted

    if not cluster.wait_ready(READY_SECONDS_MAX, pause):
        if interrupted:
            return exits.OK
        dead = cluster.take_deaths()
        for member in dead:
            report_death(member)
        reason = "a member ended" if dead else f"not ready after {READY_SECONDS_MAX:g} s: {not_ready_text(cluster)}"
        raise Failed(f"the cluster did not start: {reason}")
    say("ready")
    while not pause(1.0):
        for member in cluster.take_deaths():
            report_death(member)
        if not any(member.running for member in cluster.members.values()):
            raise Failed("no member is left")
    return exits.OK


def not_ready_text(cluster: LocalCluster) -> str:
    ready = cluster.ready_names()
    return ", ".join(name for name in cluster.members if name not in ready)


def report_death(member: Member) -> None:
    assert member.process is not None, "it ran before it died"
    code = member.process.returncode
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    sys.stderr.write(f"{member.place.name} {ending}; its log is {member.place.log}, the end of it:\n")
    sys.stderr.writelines(f"  {line}\n" for line in member.log_tail())
    sys.stderr.flush()


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


VERB = Verb(
    name="dev",
    summary="run a whole cluster on this machine",
    description=(
        "Starts members n1, n2, ... as child processes, says `ready` when all can serve, and ends them on Ctrl-C or SIGTERM.\n"
        "With the data directory of an earlier run it starts the cluster that is there."
    ),
    run=run,
    uses_cluster=False,
    options=(
        Option(
            "--nodes",
            f"how many members (default {DEFAULT_MEMBER_COUNT})",
            "N",
            convert=integer_at_least(1, MEMBER_COUNT_MAX),
        ),
        Option(
            "--port",
            f"client port of n1 (default {DEFAULT_PORT}); the others follow; 0 takes free ones",
            "PORT",
            convert=integer_at_least(0, LAST_PORT),
        ),
        Option("--data-dir", "where to keep the data and the logs; without it they go when the cluster ends", "DIR"),
        Option("--cluster-name", f"name of the cluster (default {DEFAULT_CLUSTER_NAME})", "NAME", convert=cluster_name),
        Option("--verbose", "members log to this terminal instead of to DIR/nX/log"),
    ),
    examples=(
        ("raftkv dev", "three members at 127.0.0.1:2379, 2381 and 2383; the data goes when it ends"),
        ("raftkv dev --data-dir ~/raftkv --nodes 5", "five members that keep their data"),
        ("raftkv dev --port 0", "on free ports, beside another cluster"),
    ),
)
