"""`raftkv counter NAME [DELTA]`: add to a number and print it; each call counts once, also when it had to be repeated."""

from raftkv_cli import exits
from raftkv_cli.connect import key_bytes, open_client
from raftkv_cli.output import write_json, write_line
from raftkv_cli.spec import Argument, Call, Option, UsageError, Verb, integer_at_least

INT64_MAX = 2**63 - 1


def run(call: Call) -> int:
    text = call.arguments.get("DELTA")
    if text is not None and "--set" in call.options:
        raise UsageError("DELTA and --set exclude each other")
    with open_client(call.settings) as client:
        counter = client.counter(key_bytes(call.arguments["NAME"], "NAME"))
        if "--set" in call.options:
            number = call.number("--set")
            counter.set(number)
        elif text is None:
            number = counter.value()
        else:
            number = counter.add(delta_of(text))
    if call.output == "json":
        write_json({"value": number})
    else:
        write_line(str(number))
    return exits.OK


def delta_of(text: str) -> int:
    try:
        return integer_at_least(-INT64_MAX - 1)(text.removeprefix("+"))
    except ValueError as error:
        raise UsageError(f"DELTA {text!r} {error}") from None


VERB = Verb(
    name="counter",
    summary="add to a number, once per call",
    description="Adds DELTA (which may be negative) to the counter NAME and prints the new number; without DELTA prints the number.",
    run=run,
    arguments=(Argument("NAME", "the counter"), Argument("DELTA", "what to add", required=False)),
    options=(Option("--set", "begin at this number", "NUMBER", convert=integer_at_least(-INT64_MAX - 1)),),
    examples=(("raftkv counter builds 1", "prints the number of this build, which nobody else gets"),),
    writes=True,
)
