"""etcd's requests and answers in raftkv's words, and back: pure functions that the gRPC door and the JSON gateway share.

One table (methods.py) names each remote procedure with its paths and its two translations; statuses.py has a gRPC status for every
error. What is refused and in which order is decided by wire/validate.py and by apply, not here. No I/O, no state, no clock. Needs
protobuf (the extra `raftkv[etcd]`): only a door that speaks etcd may import this room.
"""
