"""gRPC's health service. The member serves until it is told to stop, also without a leader: whoever restarts it because of that makes it worse.

Whether clients should be sent here is told by /readyz.
"""

import asyncio
from typing import AsyncGenerator, Final

from raftkv.daemon.etcd.calls import Call, Procedure, Refused
from raftkv.daemon.etcd.house import House
from raftkv.daemon.etcd.tasks import answered_by, streamed_by
from raftkv.etcd.statuses import NOT_FOUND
from raftkv.etcdpb import health_pb2 as pb

_Status = pb.HealthCheckResponse
THE_WHOLE_SERVER: Final = ""


async def check(house: House, call: Call, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
    if request.service != THE_WHOLE_SERVER:
        raise Refused(NOT_FOUND, "unknown service")
    return _standing(house)


async def watch(
    house: House, call: Call, request: pb.HealthCheckRequest
) -> AsyncGenerator[pb.HealthCheckResponse, None]:
    """What Check would say, and again when it changes."""
    if request.service == THE_WHOLE_SERVER:
        yield _standing(house)
        if not house.view.closing.is_set():
            await house.view.closing.wait()
            yield _standing(house)
    else:
        yield pb.HealthCheckResponse(status=_Status.SERVICE_UNKNOWN)
    await asyncio.Event().wait()  # nothing else will ever be said


def _standing(house: House) -> pb.HealthCheckResponse:
    return pb.HealthCheckResponse(status=_Status.NOT_SERVING if house.view.closing.is_set() else _Status.SERVING)


PROCEDURES: Final = (
    Procedure("/grpc.health.v1.Health/Check", (), pb.HealthCheckRequest, pb.HealthCheckResponse, answered_by(check)),
    Procedure(
        "/grpc.health.v1.Health/Watch",
        (),
        pb.HealthCheckRequest,
        pb.HealthCheckResponse,
        streamed_by(watch),
        server_streaming=True,
    ),
)
