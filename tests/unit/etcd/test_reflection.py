"""Server reflection: what a client can find out without .proto files."""

from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from raftkv.etcd.reflection import answer
from raftkv.etcdpb import reflection_pb2, reflection_v1alpha_pb2


@pytest.fixture(params=[reflection_pb2, reflection_v1alpha_pb2], ids=["v1", "v1alpha"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    found: ModuleType = request.param
    return found


def ask(module: ModuleType, **question: Any) -> Any:
    return answer(module.ServerReflectionRequest(host="h", **question), module)


def test_the_services_are_listed(module: ModuleType) -> None:
    told = ask(module, list_services="*")
    names = [service.name for service in told.list_services_response.service]
    assert names == sorted(names)
    assert {"etcdserverpb.KV", "v3lockpb.Lock", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} < set(
        names
    )
    assert (told.valid_host, told.original_request.list_services) == ("h", "*")


@pytest.mark.parametrize(
    "symbol", ["etcdserverpb.KV", "etcdserverpb.PutRequest", "v3electionpb.Election", "mvccpb.Event.EventType"]
)
def test_the_file_of_a_symbol_comes_with_all_that_it_needs(module: ModuleType, symbol: str) -> None:
    told = ask(module, file_containing_symbol=symbol)
    files = [FileDescriptorProto.FromString(data) for data in told.file_descriptor_response.file_descriptor_proto]
    assert len(files) == len({file.name for file in files})
    pool = DescriptorPool()
    for file in reversed(files):  # what is needed comes behind
        pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    assert pool.FindFileContainingSymbol(symbol).name == files[0].name
    by_name = ask(module, file_by_filename=files[0].name)
    assert by_name.file_descriptor_response == told.file_descriptor_response


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ({"file_containing_symbol": "no.such"}, 5),
        ({"file_by_filename": "no/such.proto"}, 5),
        ({"all_extension_numbers_of_type": "no.such"}, 5),
        ({}, 3),
    ],
)
def test_what_is_not_known_is_said(module: ModuleType, question: dict[str, str], number: int) -> None:
    assert ask(module, **question).error_response.error_code == number


def test_there_are_no_extensions(module: ModuleType) -> None:
    told = ask(module, all_extension_numbers_of_type="etcdserverpb.PutRequest")
    assert told.all_extension_numbers_response.base_type_name == "etcdserverpb.PutRequest"
    assert not told.all_extension_numbers_response.extension_number
    extension = module.ExtensionRequest(containing_type="etcdserverpb.PutRequest", extension_number=7)
    assert ask(module, file_containing_extension=extension).error_response.error_code == 5
