"""The two clients have the same methods, with the same arguments and the same words about them."""

import inspect
from typing import Any

import pytest

import raftkv
from raftkv.client.client import AsyncClient
from raftkv.client.guarded import AsyncGuarded, Guarded
from raftkv.client.keptlease import KeptLease
from raftkv.client.keptlease_async import AsyncKeptLease
from raftkv.client.sync import Client


def public(cls: type) -> dict[str, Any]:
    return {name: member for base in cls.__mro__ for name, member in vars(base).items() if not name.startswith("_")}


def test_the_names_are_the_same() -> None:
    assert set(public(AsyncClient)) == set(public(Client))


@pytest.mark.parametrize("name", sorted(public(AsyncClient)))
def test_a_method_is_the_same(name: str) -> None:
    theirs, ours = public(AsyncClient)[name], public(Client)[name]
    if isinstance(theirs, property):
        return
    assert inspect.signature(theirs).parameters == inspect.signature(ours).parameters
    assert inspect.getdoc(theirs)
    if name not in ("close", "txn"):
        assert inspect.getdoc(theirs) == inspect.getdoc(ours)


@pytest.mark.parametrize(("asynchronous", "blocking"), [(AsyncGuarded, Guarded), (AsyncKeptLease, KeptLease)])
def test_what_the_clients_hand_out_is_the_same(asynchronous: type, blocking: type) -> None:
    assert set(public(asynchronous)) == set(public(blocking))
    for name, theirs in public(asynchronous).items():
        if not isinstance(theirs, property):
            ours = public(blocking)[name]
            assert inspect.signature(theirs).parameters == inspect.signature(ours).parameters, name
            assert inspect.getdoc(theirs) == inspect.getdoc(ours)


def test_every_write_of_a_client_can_be_guarded() -> None:
    writes = {name for name, member in vars(Client).items() if _writes(member)}
    assert {"put", "delete", "increment", "append"} <= writes
    writes.remove("compact")  # changes no key
    assert writes | {"txn", "put_if_absent"} <= set(public(Guarded))


def _writes(member: Any) -> bool:
    return (
        inspect.isfunction(member) and not member.__name__.startswith("_") and "._write(" in inspect.getsource(member)
    )


def test_the_options_are_the_same() -> None:
    asynchronous = inspect.signature(AsyncClient).parameters
    blocking = dict(inspect.signature(Client).parameters)
    del blocking["connections_max"]  # the asyncio client multiplexes
    defaults = {name: parameter.default for name, parameter in asynchronous.items() if name != "client_name"}
    assert defaults == {name: parameter.default for name, parameter in blocking.items() if name != "client_name"}
    assert inspect.signature(raftkv.connect).parameters == asynchronous
