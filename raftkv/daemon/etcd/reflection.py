"""gRPC's server reflection as procedures, v1 and v1alpha."""

from collections import deque
from functools import partial
from types import ModuleType
from typing import Any, Final

from raftkv.daemon.etcd.calls import Call, Procedure, Receiver, Refused
from raftkv.daemon.etcd.house import House
from raftkv.etcd.reflection import answer
from raftkv.etcd.statuses import RESOURCE_EXHAUSTED
from raftkv.etcdpb import reflection_pb2, reflection_v1alpha_pb2

WAITING_MAX: Final = 64  # questions of a client that does not take the answers


class Reflection:
    """The receiver of one stream: an answer per question."""

    def __init__(self, module: ModuleType, house: House, call: Call) -> None:
        self._module = module
        self._call = call
        self._waiting: deque[Any] = deque()
        self._is_complete = False

    def on_message(self, message: Any) -> None:
        if len(self._waiting) >= WAITING_MAX:
            raise Refused(RESOURCE_EXHAUSTED, "answers are not taken")
        self._waiting.append(message)
        self.on_room()

    def on_half_close(self) -> None:
        self._is_complete = True
        self.on_room()

    def on_room(self) -> None:
        while self._waiting and self._call.takes_messages:
            self._call.reply(answer(self._waiting.popleft(), self._module))
        if self._is_complete and not self._waiting:
            self._call.end()

    def on_gone(self) -> None:
        self._waiting.clear()


def _open(module: ModuleType, house: House, call: Call) -> Receiver:
    return Reflection(module, house, call)


def _procedure(version: str, module: ModuleType) -> Procedure:
    return Procedure(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        (),
        module.ServerReflectionRequest,
        module.ServerReflectionResponse,
        partial(_open, module),
        client_streaming=True,
        server_streaming=True,
    )


PROCEDURES: Final = (_procedure("v1", reflection_pb2), _procedure("v1alpha", reflection_v1alpha_pb2))
