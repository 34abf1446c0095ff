"""The few etcd v3 messages that the load generators send, as protobuf bytes written by hand: no generated code, no copies.

Field numbers are those of etcd's rpc.proto: PutRequest {key 1, value 2}, RangeRequest {key 1}, TxnRequest {compare 1, success 2},
Compare {result 1, target 2, key 3, create_revision 5}, RequestOp {request_put 2}.
"""

PUT_PATH = "/etcdserverpb.KV/Put"
RANGE_PATH = "/etcdserverpb.KV/Range"
TXN_PATH = "/etcdserverpb.KV/Txn"


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


def txn_request(key: bytes, value: bytes) -> bytes:
    """Put the key if it was not created at revision 1, which no key ever is: a comparison and a put, always done."""
    compare = b"\x08\x03\x10\x01\x1a" + varint(len(key)) + key + b"\x28\x01"
    put = put_request(key, value)
    operation = b"\x12" + varint(len(put)) + put
    return b"\x0a" + varint(len(compare)) + compare + b"\x12" + varint(len(operation)) + operation
