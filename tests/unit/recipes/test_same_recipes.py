"""Every recipe is there for both clients, with the same methods, arguments and words, and the clients differ in nothing else."""

import inspect
from typing import Any

import pytest

import raftkv
from raftkv.recipes import (
    barrier,
    counter,
    election,
    group,
    jobs,
    jobs_blocking,
    lock,
    pool,
    pool_blocking,
    queue,
    rendezvous,
    rendezvous_blocking,
    semaphore,
)
from raftkv.recipes.clients import Client
from raftkv.recipes.clients_async import AsyncClient

PAIRS = [
    (lock.AsyncLock, lock.Lock),
    (semaphore.AsyncSemaphore, semaphore.Semaphore),
    (election.AsyncElection, election.Election),
    (barrier.AsyncBarrier, barrier.Barrier),
    (barrier.AsyncDoubleBarrier, barrier.DoubleBarrier),
    (queue.AsyncQueue, queue.Queue),
    (queue.AsyncClaim, queue.Claim),
    (counter.AsyncCounter, counter.Counter),
    (rendezvous.AsyncStore, rendezvous_blocking.Store),
    (jobs.AsyncJobs, jobs_blocking.Jobs),
    (jobs.AsyncJobClaim, jobs_blocking.JobClaim),  # type: ignore[attr-defined]
    (pool.AsyncPool, pool_blocking.Pool),
    (pool.AsyncGrant, pool_blocking.Grant),
    (group.AsyncGroup, group.Group),
]
METHODS = [name for name in vars(AsyncClient) if not name.startswith("_")]


def public(cls: type) -> dict[str, Any]:
    bases = reversed(cls.__mro__[:-1])
    return {name: member for base in bases for name, member in vars(base).items() if not name.startswith("_")}


def test_users_get_the_clients_with_recipes() -> None:
    assert raftkv.Client is Client
    assert raftkv.AsyncClient is AsyncClient
    assert inspect.signature(raftkv.connect) == inspect.signature(AsyncClient)


@pytest.mark.parametrize("name", METHODS)
def test_both_clients_make_it(name: str) -> None:
    theirs, ours = vars(AsyncClient)[name], vars(Client)[name]
    assert inspect.signature(theirs).parameters == inspect.signature(ours).parameters
    assert inspect.getdoc(theirs) == inspect.getdoc(ours)


def test_no_client_makes_more() -> None:
    assert set(METHODS) == {name for name in vars(Client) if not name.startswith("_")}


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_what_they_make_is_the_same(asynchronous: type, blocking: type) -> None:
    assert set(public(asynchronous)) == set(public(blocking))
    for name, theirs in public(asynchronous).items():
        ours = public(blocking)[name]
        assert inspect.getdoc(theirs) == inspect.getdoc(ours), name
        assert inspect.getdoc(theirs), name
        if not isinstance(theirs, property):
            assert inspect.signature(theirs).parameters == inspect.signature(ours).parameters, name


@pytest.mark.parametrize(("_", "blocking"), PAIRS)
def test_contexts_are_blocking(_: type, blocking: type) -> None:
    assert not hasattr(blocking, "__aenter__")
