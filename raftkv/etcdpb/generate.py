"""Makes the `*_pb2` modules from the .proto files: `make etcd-stubs`.

The type stubs are protoc's. The modules are ours instead of protoc's for two reasons: they use the pool of pool.py, and they run with
any protobuf since 4.22, where protoc's own refuse a library that is older than the compiler. Needs grpcio-tools (`raftkv[dev]`).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent


def module_of(proto: str) -> str:
    return proto.removesuffix(".proto").replace("/", ".") + "_pb2"


def python_source(file: object, serialized: bytes) -> str:
    """The module of one file descriptor."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    assert isinstance(file, FileDescriptorProto)
    lines = [f'"""The messages of {file.name}, made by `make etcd-stubs`: do not edit."""', ""]
    for dependency in sorted(file.dependency):
        package, _, name = module_of(dependency).rpartition(".")
        lines.append(f"from {package} import {name}  # noqa: F401  (registers what this file imports)")
    lines += ["from raftkv.etcdpb import pool", "", f"DESCRIPTOR = pool.add({serialized!r})", ""]
    for enum in file.enum_type:
        lines.append(f'{enum.name} = pool.enum("{file.package}.{enum.name}")')
        lines += [f"{value.name} = {value.number}" for value in enum.value]
    lines += [f'{message.name} = pool.message("{file.package}.{message.name}")' for message in file.message_type]
    return "\n".join(lines) + "\n"


def generate() -> dict[str, str]:
    """File name in this folder -> text that it should have."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    protos = sorted(str(path.relative_to(PROJECT)) for path in HERE.glob("*.proto"))
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out / 'set'}"]
        subprocess.run([*command, f"--pyi_out={out}", *protos], cwd=PROJECT, check=True)
        files = FileDescriptorSet.FromString((out / "set").read_bytes())
        made = {path.name: path.read_text() for path in out.rglob("*.pyi")}
    for file in files.file:
        made[module_of(file.name).rpartition(".")[2] + ".py"] = python_source(file, file.SerializeToString())
    return made


def main() -> None:
    for name, text in generate().items():
        (HERE / name).write_text(text)


if __name__ == "__main__":
    main()
