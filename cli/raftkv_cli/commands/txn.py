"""`raftkv txn [FILE]`: a transaction from a file, from standard input, or typed in.

What the lines mean is in txn_script.py; here they become the client's words, and its answer becomes text.
"""

import operator
import sys
from typing import Any, Callable, Sequence

from raftkv.client import txn as words
from raftkv.client.results import DeleteResult, OperationResult, PutResult, RangeResult, TxnResult
from raftkv.wire.commands import prefix_range_end
from raftkv_cli import exits
from raftkv_cli.connect import open_client
from raftkv_cli.keyvalues import kv_document
from raftkv_cli.output import write_bytes, write_json, write_line, write_table
from raftkv_cli.spec import Argument, Call, Failed, Option, Verb
from raftkv_cli.txn_script import SCRIPT_BYTES_MAX, Comparison, Operation, ScriptError, parse_script

PROMPTS = ("compares:", "success requests (put, get, del):", "failure requests (put, get, del):")
TARGETS: dict[str, Callable[[bytes], Any]] = {
    "version": words.Version,
    "create": words.CreateRevision,
    "mod": words.ModRevision,
    "value": words.Value,
    "lease": words.Lease,
}
RESULTS: dict[str, Callable[[Any, Any], words.Compare]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}


def run(call: Call) -> int:
    name, text = read_script(call)
    try:
        script = parse_script(text)
    except ScriptError as error:
        raise Failed(f"{name}: {error}") from None
    with open_client(call.settings) as client:
        transaction = client.txn().if_(*map(comparison, script.comparisons))
        result = transaction.then(*map(operation, script.success)).else_(*map(operation, script.failure)).commit()
    print_result(result, call.output)
    return exits.OK if result.succeeded or script.failure else exits.FAILED


def read_script(call: Call) -> tuple[str, str]:
    """What to call the source in an error, and its text."""
    name = call.arguments.get("FILE", "-")
    if call.flag("--interactive") or (name == "-" and sys.stdin is not None and sys.stdin.isatty()):
        return "input", "\n".join(ask(sys.stdin))
    if name != "-":
        with open(name, "rb") as file:
            return name, decoded(file.read(SCRIPT_BYTES_MAX + 1), name)
    if sys.stdin is None:
        raise Failed("standard input is closed")
    return "standard input", decoded(sys.stdin.buffer.read(SCRIPT_BYTES_MAX + 1), "standard input")


def ask(lines: Any) -> Sequence[str]:
    """Prompt for the three parts on stderr; an empty line or the end of input ends each."""
    typed: list[str] = []
    for prompt in PROMPTS:
        sys.stderr.write(f"{prompt}\n")
        sys.stderr.flush()
        line = lines.readline()
        while line.strip():
            typed.append(line.rstrip("\n"))
            line = lines.readline()
        typed.append("")
    return typed


def decoded(data: bytes, name: str) -> str:
    if len(data) > SCRIPT_BYTES_MAX:
        raise Failed(f"{name} has more than {SCRIPT_BYTES_MAX} bytes: no transaction may be that large")
    return data.decode("utf-8", "surrogateescape")


def comparison(item: Comparison) -> words.Compare:
    return RESULTS[item.result](TARGETS[item.target](item.key), item.operand)


def operation(item: Operation) -> words.Operation:
    if item.verb == "put":
        return words.Put(item.key, item.value)
    if item.verb == "del":
        return words.Delete(item.key, prefix_range_end(item.key) if item.prefix else item.range_end)
    assert item.verb == "get"
    return words.Range(prefix=item.key) if item.prefix else words.Range(item.key, item.range_end or None)


def print_result(result: TxnResult, output: str) -> None:
    if output == "json":
        responses = [response_document(response) for response in result.responses]
        write_json({"succeeded": result.succeeded, "revision": result.revision, "responses": responses})
    elif output == "table":
        rows = [(number, *response_words(response)) for number, response in enumerate(result.responses, 1)]
        write_table(("operation", "kind", "answer"), [("all", "txn", outcome(result)), *rows])
    else:
        write_line(outcome(result))
        for response in result.responses:
            write_bytes(response_bytes(response))


def outcome(result: TxnResult) -> str:
    return "SUCCESS" if result.succeeded else "FAILURE"


def response_document(response: OperationResult) -> dict[str, Any]:
    if isinstance(response, PutResult):
        return {"put": "OK"}
    if isinstance(response, DeleteResult):
        return {"deleted": response.deleted}
    assert isinstance(response, RangeResult), "the script has no nested transactions"
    return {"kvs": [kv_document(kv) for kv in response.kvs], "count": response.count}


def response_words(response: OperationResult) -> tuple[str, str]:
    if isinstance(response, PutResult):
        return "put", "OK"
    if isinstance(response, DeleteResult):
        return "del", str(response.deleted)
    assert isinstance(response, RangeResult), "the script has no nested transactions"
    return "get", f"{len(response.kvs)} of {response.count} keys"


def response_bytes(response: OperationResult) -> bytes:
    if isinstance(response, RangeResult):
        return b"".join(b"%b\n%b\n" % (kv.key, kv.value) for kv in response.kvs)
    return response_words(response)[1].encode() + b"\n"


VERB = Verb(
    name="txn",
    summary="compare, then do the one or the other, atomically",
    description=(
        "Reads comparisons, an empty line, what to do when all of them hold, an empty line, and what to do otherwise:\n\n"
        '    mod("job/7/state") = "12"\n'
        '    value("job/7/owner") != "me"\n'
        "\n"
        '    put job/7/state "running now"\n'
        "    del job/7/lock\n"
        "\n"
        "    get job/7/ --prefix\n\n"
        "Comparisons: version create mod value lease, with = != > <. Operations: put KEY VALUE, get KEY [--prefix | END] and\n"
        'del KEY [--prefix | END]. Words with spaces stand in double quotes, with \\n \\t \\" \\\\ and \\xNN inside; # begins a comment.\n'
        "Prints SUCCESS or FAILURE, then an answer per operation. Exit 1 when the comparisons failed and nothing else was asked for."
    ),
    run=run,
    arguments=(Argument("FILE", "where the script is; - or nothing is standard input", required=False),),
    options=(Option("--interactive", "prompt for the parts, also when the input is no terminal", short="-i"),),
    examples=(
        ("raftkv txn", "typed in, with prompts"),
        ("raftkv txn take-job.txn", "from a file"),
        ("printf 'version(lock) = 0\\n\\nput lock me\\n' | raftkv txn", "take a lock if nobody has it"),
    ),
    writes=True,
)
