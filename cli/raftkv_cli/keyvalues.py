"""How key-values leave the command line: raw lines, table rows, and the JSON that DESIGN fixes."""

from typing import Any, Sequence

from raftkv.client.results import KeyValue
from raftkv_cli.output import named_bytes, readable, write_bytes, write_json, write_table

HEADINGS = ("key", "value", "create", "mod", "version", "lease")


def kv_document(kv: KeyValue, *, keys_only: bool = False) -> dict[str, Any]:
    """One key-value as JSON: key and value as text where they are UTF-8, else as base64."""
    document: dict[str, Any] = named_bytes("key", kv.key)
    if not keys_only:
        document.update(named_bytes("value", kv.value))
    document.update(
        create_revision=kv.create_revision, mod_revision=kv.mod_revision, version=kv.version, lease=kv.lease
    )
    return document


def print_one(kv: KeyValue, output: str, *, keys_only: bool) -> None:
    """The answer to `get KEY`: the value alone."""
    if output == "json":
        write_json(kv_document(kv, keys_only=keys_only))
    elif output == "table":
        write_table(HEADINGS, [table_row(kv)])
    else:
        write_bytes((kv.key if keys_only else kv.value) + b"\n")


def print_many(kvs: Sequence[KeyValue], output: str, *, keys_only: bool) -> None:
    """The answer to a range: a key line, then a value line, for each."""
    if output == "json":
        write_json([kv_document(kv, keys_only=keys_only) for kv in kvs])
    elif output == "table":
        write_table(HEADINGS, [table_row(kv) for kv in kvs])
    else:
        write_bytes(b"".join(kv.key + b"\n" if keys_only else b"%b\n%b\n" % (kv.key, kv.value) for kv in kvs))


def table_row(kv: KeyValue) -> tuple[object, ...]:
    return (readable(kv.key), readable(kv.value), kv.create_revision, kv.mod_revision, kv.version, kv.lease)
