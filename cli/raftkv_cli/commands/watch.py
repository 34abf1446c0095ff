"""`raftkv watch KEY`: what changes, as it changes, until Ctrl-C."""

import os
from typing import TYPE_CHECKING, Any

from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.output import readable, shortened, write_bytes, write_json, write_line
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least, one_of

if TYPE_CHECKING:
    from raftkv.client.watchstate import Event, WatchBatch


def run(call: Call) -> int:
    prefix = call.flag("--prefix")
    if prefix and "--range-end" in call.options:
        raise UsageError("--prefix and --range-end exclude each other")
    text = call.arguments["KEY"]
    key = os.fsencode(text) if prefix else key_bytes(text)
    range_end = key_bytes(call.text("--range-end"), "--range-end") if "--range-end" in call.options else None
    left = call.number("--limit")
    with (
        open_client(call.settings) as client,
        client.watch(
            None if prefix else key,
            range_end,
            prefix=key if prefix else None,
            start_revision=call.number("--rev"),
            prev_kv=call.flag("--prev-kv"),
            only=call.options.get("--only"),
            progress=call.flag("--progress"),
        ) as watch,
    ):
        for batch in watch.batches():
            left = show(batch, call.output, left)
            if left < 0:
                break
    return exits.OK


def show(batch: "WatchBatch", output: str, left: int) -> int:
    """Print one revision; how many events are left of the limit, -1 when that was the last, 0 without one."""
    if not batch.events:
        show_progress(batch.revision, output)
    for event in batch.events:
        show_event(event, output)
        if left == 1:
            return -1
        left = max(left - 1, 0)
    return left


def show_event(event: "Event", output: str) -> None:
    if output == "json":
        write_json(event_document(event))
    elif output == "table":
        value = shortened(readable(event.value)) if event.type == "put" else ""
        write_line(f"{event.revision:>10}  {event.type:<6}  {readable(event.key)}  {value}".rstrip())
    elif event.type == "put":
        write_bytes(b"PUT\n%b\n%b\n" % (event.key, event.value))
    else:
        write_bytes(b"DELETE\n%b\n" % event.key)


def event_document(event: "Event") -> dict[str, Any]:
    """One event as JSON: as `get` shows a key, with the type in front; of a deleted key only what there is to say."""
    from raftkv_cli.keyvalues import kv_document
    from raftkv_cli.output import named_bytes

    document: dict[str, Any] = {"type": event.type}
    if event.type == "put":
        document.update(kv_document(event.kv))
    else:
        document.update(**named_bytes("key", event.key), mod_revision=event.revision)
    if event.prev_kv is not None:
        document["prev"] = kv_document(event.prev_kv)
    return document


def show_progress(revision: int, output: str) -> None:
    if output == "json":
        write_json({"type": "progress", "revision": revision})
    elif output == "table":
        write_line(f"{revision:>10}  progress")
    else:
        write_line(f"PROGRESS\n{revision}")


VERB = Verb(
    name="watch",
    summary="print changes as they happen",
    description=(
        "Prints PUT, the key and the value, or DELETE and the key, a line each, until Ctrl-C. It goes on by itself when a member or the\n"
        "leader goes away, and shows every change once. Exit code 1 when what it has not shown yet was compacted."
    ),
    run=run,
    arguments=(Argument("KEY", "the key, the prefix, or the first key of a range"),),
    options=(
        Option("--prefix", "all keys that start with KEY; an empty KEY means all"),
        Option("--range-end", "all keys from KEY up to this one, without it", "END"),
        Option("--rev", "from this revision on, history included", "REVISION", convert=integer_at_least(1)),
        Option("--prev-kv", "in JSON: with what was there before"),
        Option("--only", "only put or only delete", "TYPE", convert=one_of("put", "delete")),
        Option("--progress", "show now and then that nothing was missed up to some revision"),
        Option("--limit", "end after so many changes", "N", convert=integer_at_least(1)),
    ),
    examples=(
        ("raftkv watch job/7/state", "one key, from now on"),
        ("raftkv watch job/ --prefix --rev 120 -o json", "everything below job/ since revision 120, one object a line"),
        ("raftkv watch deploy/ready --limit 1 && ./start", "wait for the next change"),
    ),
)
