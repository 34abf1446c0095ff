"""Ranges that are longer than one answer of raftkv: how a door goes on, so that the client of etcd gets all of it.

raftkv cuts a range at `range_reply_bytes_max` and says `more`; etcd cuts at the limit that was asked for and nowhere else, so its clients
do not look at `more` unless they gave one. The door asks again, at the same revision, behind the last key, and joins the pages (long_ranges.py).
"""

from raftkv.errors import RequestTooLarge
from raftkv.wire.commands import SORT_ASCEND, SORT_DESCEND, SORT_KEY, SORT_NONE, UNCOUNTED, Answer, Command


def next_page(command: Command, answer: Answer) -> Command | None:
    """The RANGE that goes on where this answer was cut; None when it was not, or only at the limit that was asked for.

    Raises RequestTooLarge when it is sorted by something else than the key: then nobody knows what comes next.
    """
    _, flags, key, range_end, limit, revision, order, target, *bounds = command
    _, header_revision, key_values, more, _ = answer
    if not more or 0 < limit <= len(key_values):
        return None
    if target != SORT_KEY:
        raise RequestTooLarge(
            "a range that is sorted by something else than the key does not fit into one answer: set a limit"
        )
    assert key_values, "a range that is cut has at least one key"
    last = key_values[-1][0]
    if order == SORT_DESCEND:
        range_end = last  # reached backwards: everything in front of the last one is left
    else:
        assert order in (SORT_NONE, SORT_ASCEND), "validated"
        key = last + b"\0"
    rest = limit - len(key_values) if limit > 0 else limit
    return [
        command[0],
        flags | UNCOUNTED,  # the first page has counted
        key,
        range_end,
        rest,
        revision if revision > 0 else header_revision,
        order,
        target,
        *bounds,
    ]
