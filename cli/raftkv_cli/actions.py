"""Verbs with actions (`raftkv queue put ...`): one table of actions per verb, and one way to find and check them."""

from typing import Callable, Mapping, NamedTuple

from raftkv_cli import exits
from raftkv_cli.output import write_json, write_line
from raftkv_cli.parse import nearest
from raftkv_cli.spec import Call, UsageError


class Action(NamedTuple):
    """What can be done: the function, the arguments it needs behind its name, those it may have, and the options that are its own."""

    run: Callable[[Call], int]
    needs: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    command: bool = False


ARGUMENTS = ("NAME", "VALUE", "MORE", "FURTHER")
"""What the arguments behind ACTION are called in the specs of such verbs."""


def perform(call: Call, actions: Mapping[str, Action]) -> int:
    """Find the action, check its arguments and options, do it. Raises UsageError."""
    name = call.arguments["ACTION"]
    action = actions.get(name)
    if action is None:
        raise UsageError(f"unknown action {name!r}{nearest(name, actions)}: {', '.join(actions)}")
    given = [argument for argument in ARGUMENTS if argument in call.arguments]
    wanted = (*action.needs, *action.may_have)
    if len(given) < len(action.needs):
        raise UsageError(f"{name} needs {action.needs[len(given)]}")
    if len(given) > len(wanted):
        raise UsageError(f"{name} takes no argument {call.arguments[given[len(wanted)]]!r}")
    own = {option for other in actions.values() for option in other.options}
    for option in call.options:
        if option in own and option not in action.options:
            raise UsageError(f"{option} does not belong to {name}")
    if call.rest and not action.command:
        raise UsageError(f"{name} runs no command")
    return action.run(call)


def words_of(call: Call) -> list[str]:
    """What was given behind the name of the action."""
    return [call.arguments[argument] for argument in ARGUMENTS if argument in call.arguments]


def say_done(call: Call) -> int:
    """The answer of an action that has none."""
    if call.output == "json":
        write_json({"ok": True})
    else:
        write_line("OK")
    return exits.OK
