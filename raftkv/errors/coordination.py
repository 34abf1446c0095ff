"""Errors of the recipes. Here because they are many; importers take them from raftkv.errors like all others."""

from raftkv.errors import InvalidRequest, RaftKVError


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


# Pools.


class PoolNotFound(RaftKVError):
    """There is no such pool."""

    code = "pool_not_found"


class PoolExists(RaftKVError):
    """There is a pool of this name."""

    code = "pool_exists"


class PoolBusy(RaftKVError):
    """The pool is used or waited for."""

    code = "pool_busy"


class DemandTooLarge(InvalidRequest):
    """More is asked for than the pool has, or the tenant may have."""

    code = "demand_too_large"


class PoolRequestExists(RaftKVError):
    """There is another request of this id."""

    code = "pool_request_exists"


class PoolRequestNotFound(RaftKVError):
    """There is no such request."""

    code = "pool_request_not_found"


class TooManyPoolRequests(RaftKVError):
    """The cluster keeps as many requests as it may."""

    code = "too_many_pool_requests"


# Jobs.


class JobNotFound(RaftKVError):
    """There is no such job."""

    code = "job_not_found"


class JobState(RaftKVError):
    """The job is in a state from which this does not follow."""

    # details: state
    code = "job_state"


# Rendezvous.


class QueueEmpty(RaftKVError):
    """The queue of a rendezvous has nothing in it."""

    code = "queue_empty"
