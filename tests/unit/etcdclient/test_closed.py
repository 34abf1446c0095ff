"""A client of etcd that is closed says so in its own words: what gRPC says of a closed channel is none of its errors."""

import pytest

import raftkv
from raftkv.client import requests
from raftkv.client.decisions import READ
from raftkv.errors import ClientClosed, RaftKVError
from raftkv.recipes.etcd_clients_async import AsyncEtcdClient


async def test_a_call_that_finds_its_channel_closed() -> None:
    """Between two steps: nobody is there, so it would be asked again."""
    kv = raftkv.connect("etcd://127.0.0.1:1", timeout=0.5)
    assert isinstance(kv, AsyncEtcdClient)
    with pytest.raises(RaftKVError):
        await kv.get("k")  # there is a channel
    begun = kv._bound().submit(requests.get(b"k"), READ, 5.0)
    await kv.close()
    with pytest.raises(ClientClosed):
        await begun
