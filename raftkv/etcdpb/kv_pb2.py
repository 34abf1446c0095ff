"""The messages of raftkv/etcdpb/kv.proto, made by `make etcd-stubs`: do not edit."""

from raftkv.etcdpb import pool

DESCRIPTOR = pool.add(b'\n\x16raftkv/etcdpb/kv.proto\x12\x06mvccpb"\xae\x01\n\x08KeyValue\x12\x10\n\x03key\x18\x01 \x01(\x0cR\x03key\x12\'\n\x0fcreate_revision\x18\x02 \x01(\x03R\x0ecreateRevision\x12!\n\x0cmod_revision\x18\x03 \x01(\x03R\x0bmodRevision\x12\x18\n\x07version\x18\x04 \x01(\x03R\x07version\x12\x14\n\x05value\x18\x05 \x01(\x0cR\x05value\x12\x14\n\x05lease\x18\x06 \x01(\x03R\x05lease"\xa3\x01\n\x05Event\x12+\n\x04type\x18\x01 \x01(\x0e2\x17.mvccpb.Event.EventTypeR\x04type\x12 \n\x02kv\x18\x02 \x01(\x0b2\x10.mvccpb.KeyValueR\x02kv\x12)\n\x07prev_kv\x18\x03 \x01(\x0b2\x10.mvccpb.KeyValueR\x06prevKv" \n\tEventType\x12\x07\n\x03PUT\x10\x00\x12\n\n\x06DELETE\x10\x01b\x06proto3')

KeyValue = pool.message("mvccpb.KeyValue")
Event = pool.message("mvccpb.Event")
