"""`raftkv serve`: run one member. Only a door: the daemon parses its own options and does all the work."""

from raftkv_cli import lifeline
from raftkv_cli.spec import Call, Verb


def run(call: Call) -> int:
    lifeline.hold()
    raise NotImplementedError


VERB = Verb(name="serve", summary="run one member", run=run, uses_cluster=False, parses_itself=True)
