"""The committed etcd messages are those of the .proto files, and get along with other users of protobuf."""

from google.protobuf import descriptor_pool

from raftkv.etcdpb import election_pb2, generate, kv_pb2, lock_pb2, rpc_pb2


def test_the_committed_modules_are_current() -> None:
    made = generate.generate()
    stale = [name for name, text in made.items() if (generate.HERE / name).read_text() != text]
    assert not stale, f"run `make etcd-stubs`: {stale}"
    assert {path.name for path in generate.HERE.glob("*_pb2.*")} == set(made), "modules of a .proto file that is gone"


def test_field_numbers_that_clients_depend_on() -> None:
    """The odd ones of the contract: a generator cannot know them."""
    assert rpc_pb2.Compare.DESCRIPTOR.fields_by_name["range_end"].number == 64
    assert rpc_pb2.WatchResponse.DESCRIPTOR.fields_by_name["events"].number == 11
    put = rpc_pb2.PutRequest(key=b"a", value=b"b", lease=-1)
    assert put.SerializeToString() == b"\x0a\x01a\x12\x01b\x18" + b"\xff" * 9 + b"\x01"
    assert lock_pb2.LockResponse(header=rpc_pb2.ResponseHeader(revision=3)).SerializeToString() == b"\x0a\x02\x18\x03"
    assert election_pb2.LeaderResponse(kv=kv_pb2.KeyValue(key=b"k")).SerializeToString() == b"\x12\x03\x0a\x01k"


def test_the_default_pool_is_left_to_others() -> None:
    """The etcd clients of PyPI register the same names there, and a second registration would fail at import."""
    other = b'\n\trpc.proto\x12\x0cetcdserverpb"\x0c\n\nPutRequest'
    assert descriptor_pool.Default().AddSerializedFile(other) is not None
