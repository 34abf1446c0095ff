"""The descriptor pool of these messages, apart from protobuf's default one.

The clients of etcd on PyPI register the same names (`etcdserverpb.PutRequest`) in the default pool, and a second registration there
fails at import. With a pool of its own, raftkv and such a client can live in one process.
"""

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

POOL = descriptor_pool.DescriptorPool()


def add(serialized: bytes) -> FileDescriptor:
    """Registers one file; those it imports must be there."""
    POOL.AddSerializedFile(serialized)
    name = serialized[2 : 2 + serialized[1]].decode()  # a file descriptor begins with its name, shorter than 128 bytes
    return POOL.FindFileByName(name)


def message(full_name: str) -> Any:
    """The class of a message."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


def enum(full_name: str) -> Any:
    """The wrapper of an enum outside any message."""
    return EnumTypeWrapper(POOL.FindEnumTypeByName(full_name))
