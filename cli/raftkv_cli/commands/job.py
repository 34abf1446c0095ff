"""`raftkv job submit|list|show|claim|heartbeat|complete|fail|cancel|release|watch|remove`: jobs, for people and for workers in any language.

The jobs of `--queue NAME` (default `jobs`). A worker without raftkv's library claims, renews with heartbeat, and completes, by id and token.
"""

import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING

from raftkv.errors import FencingTokenStale
from raftkv_cli import exits
from raftkv_cli.actions import Action, perform
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.holding import run_while_held
from raftkv_cli.output import shortened, write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least, one_of, positive_seconds

if TYPE_CHECKING:
    from raftkv import Client
    from raftkv.recipes.job_model import Job
    from raftkv.recipes.jobs_blocking import JobClaim, Jobs

GRACE_SECONDS = 5.0
PRIORITY_MAX = 10**9
STATES = ("submitted", "queued", "running", "succeeded", "failed", "cancelled", "timed_out")


class BareLease:
    """A lease that lives on after this process, to be renewed by heartbeats."""

    def __init__(self, client: "Client", ttl: float) -> None:
        granted = client.lease_grant(ttl)
        self.id, self.ttl, self.valid_for = granted.id, granted.ttl, granted.ttl
        self.lost = threading.Event()
        self.doubt = threading.Event()


def run(call: Call) -> int:
    return perform(call, ACTIONS)


def jobs_of(client: "Client", call: Call, lease: BareLease | None = None) -> "Jobs":
    name = key_bytes(call.text("--queue", "jobs"), "--queue")
    return client.jobs(name, ttl=call.seconds("--ttl", 10.0), lease=lease, worker=call.text("--worker"))


def labels(call: Call) -> dict[str, str] | None:
    if "--label" not in call.options:
        return None
    found: dict[str, str] = {}
    for part in call.text("--label").split(","):
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise UsageError(f"--label {part!r} is not NAME=VALUE")
        found[name] = value
    return found


def submit(call: Call) -> int:
    text = call.arguments["NAME"]
    payload = sys.stdin.read() if text == "-" else text
    with open_client(call.settings) as client:
        job = jobs_of(client, call).submit(
            payload,
            job_id=call.text("--id"),
            priority=call.number("--priority"),
            attempts=call.number("--attempts", 3),
            run_limit=call.seconds("--run-limit", 0.0),
            workers=call.number("--workers", 1),
            labels=labels(call),
            hold=call.flag("--hold"),
        )
    return show_job(call, job, short=job.id)


def list_(call: Call) -> int:
    with open_client(call.settings) as client:
        found = jobs_of(client, call).list(state=call.options.get("--state"), labels=labels(call))
    if call.output == "json":
        write_json([asdict(job) for job in found])
        return exits.OK
    rows = [
        (
            job.id,
            job.state + (" (dead)" if job.dead else ""),
            f"{job.attempt}/{job.attempts_max}",
            ",".join(job.owners),
            job.progress,
            shortened(job.payload),
        )
        for job in found
    ]
    write_table(("id", "state", "attempt", "worker", "progress", "payload"), rows)
    return exits.OK


def show(call: Call) -> int:
    with open_client(call.settings) as client:
        job = jobs_of(client, call).show(call.arguments["NAME"])
    if call.output == "json":
        return show_job(call, job, short="")
    write_line(f"{job.id} {job.state}, attempt {job.attempt} of {job.attempts_max}")
    for name, text in (("progress", job.progress), ("result", job.result), ("error", job.error)):
        if text:
            write_line(f"{name}: {text}")
    write_table(
        ("when", "state", "attempt", "who", "note"),
        [
            (f"{line['when']:.3f}", line["state"], line["attempt"], line["who"], line.get("note", ""))
            for line in job.history
        ],
    )
    return exits.OK


def claim(call: Call) -> int:
    with open_client(call.settings) as client:
        if call.rest:
            with jobs_of(client, call) as jobs:
                return work(call, jobs.claim(call.options.get("--wait")))
        lease = BareLease(client, call.seconds("--ttl", 10.0))
        try:
            held = jobs_of(client, call, lease).claim(call.options.get("--wait"))
        except BaseException:
            client.lease_revoke(lease.id)
            raise
        if call.output == "json":
            write_json({"id": held.id, "token": held.token, "payload": held.job.payload, "attempt": held.job.attempt})
        else:
            write_line(f"{held.id} {held.token} {held.job.payload}")
    return exits.OK


def work(call: Call, held: "JobClaim") -> int:
    environment = {
        "RAFTKV_JOB": held.job.payload,
        "RAFTKV_JOB_ID": held.id,
        "RAFTKV_JOB_TOKEN": str(held.token),
        "RAFTKV_JOB_ATTEMPT": str(held.job.attempt),
        "RAFTKV_JOB_RANK": str(held.rank),
    }
    code = run_while_held(call.rest, environment, held.lost, call.seconds("--grace", GRACE_SECONDS))
    try:
        if code == exits.OK:
            held.complete()
        else:
            held.fail(f"exit code {code}")
    except FencingTokenStale as error:
        sys.stderr.write(f"raftkv job: fencing_token_stale: {error.message}\n")
        return exits.FAILED
    return code


def token_of(call: Call) -> int:
    text = call.arguments["VALUE"]
    if not text.isdecimal():
        raise UsageError(f"TOKEN {text!r} is not a whole number")
    return int(text)


def heartbeat(call: Call) -> int:
    with open_client(call.settings) as client:
        job = jobs_of(client, call).heartbeat(call.arguments["NAME"], token_of(call), call.arguments.get("MORE", ""))
    return show_job(call, job, short="OK")


def complete(call: Call) -> int:
    with open_client(call.settings) as client:
        job = jobs_of(client, call).complete(call.arguments["NAME"], token_of(call), call.arguments.get("MORE", ""))
    return show_job(call, job, short=job.state)


def fail(call: Call) -> int:
    with open_client(call.settings) as client:
        job = jobs_of(client, call).fail(
            call.arguments["NAME"],
            token_of(call),
            call.arguments.get("MORE", "failed"),
            retry=not call.flag("--no-retry"),
        )
    return show_job(call, job, short=job.state)


def cancel(call: Call) -> int:
    with open_client(call.settings) as client:
        job = jobs_of(client, call).cancel(call.arguments["NAME"])
    return show_job(call, job, short=job.state)


def release(call: Call) -> int:
    with open_client(call.settings) as client:
        job = jobs_of(client, call).release(call.arguments["NAME"])
    return show_job(call, job, short=job.state)


def remove(call: Call) -> int:
    with open_client(call.settings) as client:
        jobs_of(client, call).remove(call.arguments["NAME"])
    write_line("OK")
    return exits.OK


def watch(call: Call) -> int:
    with open_client(call.settings) as client:
        for job in jobs_of(client, call).watch(call.arguments.get("NAME", "")):
            show_job(call, job, short=f"{job.id} {job.state} {job.progress}".rstrip())
    return exits.OK


def show_job(call: Call, job: "Job", *, short: str) -> int:
    if call.output == "json":
        write_json(asdict(job))
    else:
        write_line(short)
    return exits.OK


ACTIONS = {
    "submit": Action(
        submit,
        ("PAYLOAD",),
        options=("--id", "--priority", "--attempts", "--run-limit", "--workers", "--label", "--hold"),
    ),
    "list": Action(list_, options=("--state", "--label")),
    "show": Action(show, ("ID",)),
    "claim": Action(claim, options=("--wait", "--ttl", "--grace"), command=True),
    "heartbeat": Action(heartbeat, ("ID", "TOKEN"), ("PROGRESS",)),
    "complete": Action(complete, ("ID", "TOKEN"), ("RESULT",)),
    "fail": Action(fail, ("ID", "TOKEN"), ("ERROR",), options=("--no-retry",)),
    "cancel": Action(cancel, ("ID",)),
    "release": Action(release, ("ID",)),
    "remove": Action(remove, ("ID",)),
    "watch": Action(watch, (), ("ID",)),
}

VERB = Verb(
    name="job",
    summary="submit jobs, work on them, and see what became of them",
    description=(
        "submit PAYLOAD prints the id of a new job. claim -- COMMAND takes the next one and runs COMMAND with RAFTKV_JOB (and _ID, _TOKEN, _ATTEMPT, _RANK) in its "
        "environment: exit code 0 completes it, any other fails the attempt. Without COMMAND it prints ID TOKEN PAYLOAD: renew with heartbeat ID TOKEN within "
        "--ttl, then complete or fail ID TOKEN. A token that is not the current one any more is refused."
    ),
    run=run,
    arguments=(
        Argument("ACTION", "submit, list, show, claim, heartbeat, complete, fail, cancel, release, remove or watch"),
        Argument("NAME", "the payload (- reads standard input), or the id", required=False),
        Argument("VALUE", "the token", required=False),
        Argument("MORE", "the progress, result or error", required=False),
    ),
    options=(
        Option("--queue", "which jobs (default jobs)", "NAME"),
        Option("--worker", "who we are, for the history (default host:pid)", "NAME"),
        Option("--id", "submit: the id; the same again is the same job", "ID"),
        Option(
            "--priority", "submit: larger goes first", "NUMBER", convert=integer_at_least(-PRIORITY_MAX, PRIORITY_MAX)
        ),
        Option("--attempts", "submit: how often it is tried (default 3)", "NUMBER", convert=integer_at_least(1, 10**6)),
        Option("--run-limit", "submit: the longest run of an attempt", "SECONDS", convert=positive_seconds),
        Option("--workers", "submit: how many work on it at once", "NUMBER", convert=integer_at_least(1, 10**4)),
        Option("--label", "submit: labels; list: only with these", "NAME=VALUE,..."),
        Option("--hold", "submit: not queued before `release ID`"),
        Option("--state", "list: only in this state", "STATE", convert=one_of(*STATES)),
        Option("--wait", "claim: give up after so long (default: wait for ever)", "SECONDS", convert=positive_seconds),
        Option(
            "--ttl", "claim: how long it outlives us, or a heartbeat (default 10)", "SECONDS", convert=positive_seconds
        ),
        Option(
            "--grace",
            "claim: after a loss, between SIGTERM and SIGKILL (default 5)",
            "SECONDS",
            convert=positive_seconds,
        ),
        Option("--no-retry", "fail: for good"),
    ),
    examples=(
        ("raftkv job submit 'train --config a.yaml' --attempts 5 --run-limit 3600", "prints the id"),
        ("raftkv job claim -- sh -c '$RAFTKV_JOB'", "works on the next one"),
        ("raftkv job watch 1f00c0de", "until it has ended"),
    ),
    writes=True,
    takes_command=True,
)
