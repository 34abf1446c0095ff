"""Errors of the recipes. Here because they are many; importers take them from raftkv.errors like all others."""

from raftkv.errors import RaftKVError


class NotAcquired(RaftKVError):
    """What was waited for was not free in time; the place in its queue was given up."""

    # details: name
    code = "not_acquired"


class LockLost(RaftKVError):
    """What was held is gone, or nobody can tell any more: its session has ended."""

    code = "lock_lost"


class NotHeld(RaftKVError):
    """What is to be given back is not held."""

    code = "not_held"
