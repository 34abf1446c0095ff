"""etcd's wire messages: the .proto files, written from the field tables of etcd's public API, and the modules made from them.

They are a room of their own, at the bottom, because both sides speak them: the daemon's front door and a client of a foreign etcd.
`make etcd-stubs` makes the modules anew; a test in tests/tidy compares. Needs protobuf (the extra `raftkv[etcd]`), so nothing
outside imports this room before it is sure to speak etcd.
"""
