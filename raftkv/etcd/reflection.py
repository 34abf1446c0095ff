"""gRPC's server reflection: what is served here, by descriptors, so that grpcurl and the like need no .proto files. Etcd has none.

Two versions of the same service with the same messages: whoever answers gives the module whose messages are wanted.
"""

from types import ModuleType
from typing import Any, Final

from google.protobuf.descriptor import FileDescriptor

from raftkv.etcd.statuses import INVALID_ARGUMENT, NOT_FOUND
from raftkv.etcdpb import election_pb2, health_pb2, lock_pb2, reflection_pb2, reflection_v1alpha_pb2, rpc_pb2
from raftkv.etcdpb.pool import POOL

FILES: Final[tuple[ModuleType, ...]] = (
    rpc_pb2,
    lock_pb2,
    election_pb2,
    health_pb2,
    reflection_pb2,
    reflection_v1alpha_pb2,
)
"""Those that have services, all of them served."""


def services() -> list[str]:
    """Their full names, in order."""
    return sorted(service.full_name for file in FILES for service in file.DESCRIPTOR.services_by_name.values())


def answer(request: Any, module: ModuleType) -> Any:
    """The response to one request of the stream. What is not known is an answer too, not the end of the stream."""
    response = module.ServerReflectionResponse(valid_host=request.host, original_request=request)
    kind = request.WhichOneof("message_request")
    try:
        if kind == "list_services":
            response.list_services_response.SetInParent()
            for name in services():
                response.list_services_response.service.add(name=name)
        elif kind == "file_by_filename":
            _add_file(response, POOL.FindFileByName(request.file_by_filename))
        elif kind == "file_containing_symbol":
            _add_file(response, POOL.FindFileContainingSymbol(request.file_containing_symbol))
        elif kind == "all_extension_numbers_of_type":
            POOL.FindMessageTypeByName(request.all_extension_numbers_of_type)
            response.all_extension_numbers_response.base_type_name = request.all_extension_numbers_of_type
        elif kind == "file_containing_extension":
            raise KeyError("there are no extensions")
        else:
            _refuse(response, INVALID_ARGUMENT, "the request asks for nothing")
    except KeyError as error:
        _refuse(response, NOT_FOUND, str(error.args[0]))
    return response


def _refuse(response: Any, number: int, text: str) -> None:
    response.error_response.error_code = number
    response.error_response.error_message = text


def _add_file(response: Any, file: FileDescriptor) -> None:
    """A file and all that it needs; what one needs comes behind it."""
    files: dict[str, bytes] = {}
    _collect(file, files)
    response.file_descriptor_response.file_descriptor_proto.extend(reversed(files.values()))


def _collect(file: FileDescriptor, files: dict[str, bytes]) -> None:
    for needed in file.dependencies:
        if needed.name not in files:
            _collect(needed, files)
    files[file.name] = file.serialized_pb
