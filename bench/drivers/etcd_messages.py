"""The few etcd v3 messages that the load generators send, as protobuf bytes written by hand: no generated code, no copies.

Field numbers are those of etcd's rpc.proto: PutRequest {key 1, value 2}, RangeRequest {key 1}.
"""

PUT_PATH = "/etcdserverpb.KV/Put"
RANGE_PATH = "/etcdserverpb.KV/Range"


def varint(number: int) -> bytes:
    """A base-128 varint of protobuf."""
    assert number >= 0, "lengths are not negative"
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def put_request(key: bytes, value: bytes) -> bytes:
    return b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value


def range_request(key: bytes) -> bytes:
    """A linearizable read of one key (serializable is false by default)."""
    return b"\x0a" + varint(len(key)) + key
