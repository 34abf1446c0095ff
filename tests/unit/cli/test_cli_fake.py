"""The fake client has the signatures of the real one: a test against the fake says something about the real."""

import inspect

import pytest

from raftkv.client.sync import Client

from .fake_client import FakeClient

METHODS = [name for name, _ in inspect.getmembers(FakeClient, inspect.isfunction) if not name.startswith("__")]


@pytest.mark.parametrize("name", [*METHODS, "__init__"])
def test_signatures_agree(name: str) -> None:
    fake = inspect.signature(getattr(FakeClient, name)).parameters
    real = inspect.signature(getattr(Client, name)).parameters
    for parameter in fake.values():
        assert parameter.name in real, f"Client.{name} has no {parameter.name}"
        assert real[parameter.name].kind == parameter.kind
        assert real[parameter.name].default == parameter.default or name == "__init__"
    required = [p.name for p in real.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    assert set(required) <= set(fake)


def test_the_fake_covers_the_verbs() -> None:
    assert set(METHODS) == {
        *("put", "get_kv", "range", "delete_range", "txn", "compact", "watch", "status", "move_leader"),
        *("defragment", "_revoke_kept"),
        *("auth_enable", "auth_disable", "auth_status"),
        *("user_add", "user_delete", "user_change_password", "user_get", "user_list"),
        *("user_grant_role", "user_revoke_role", "role_add", "role_delete", "role_get", "role_list"),
        *("role_grant_permission", "role_revoke_permission"),
        *("lease_grant", "lease_revoke", "lease_keep_alive_once", "lease_ttl", "leases"),
    }
