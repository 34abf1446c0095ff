"""gRPC's health and reflection services as procedures."""

import asyncio

import pytest

from raftkv.daemon.etcd.calls import Procedure, Refused
from raftkv.daemon.etcd.procedures import PROCEDURES
from raftkv.daemon.etcd.reflection import WAITING_MAX
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import health_pb2 as health
from raftkv.etcdpb import reflection_pb2 as reflection
from tests.unit.conftest import Run
from tests.unit.daemon.etcd_calls import HandCall, HandHouse, opened, unary

SERVING = health.HealthCheckResponse(status=health.HealthCheckResponse.SERVING)
NOT_SERVING = health.HealthCheckResponse(status=health.HealthCheckResponse.NOT_SERVING)


def test_a_member_serves_until_it_leaves(run: Run) -> None:
    async def scenario() -> None:
        house = HandHouse().house
        check, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
        assert await unary(house, check, health.HealthCheckRequest()) == SERVING
        unknown = await unary(house, check, health.HealthCheckRequest(service="etcdserverpb.KV"))
        assert unknown == Status(5, "unknown service")
        call, receiver = opened(house, watch, health.HealthCheckRequest())
        other, _ = opened(house, watch, health.HealthCheckRequest(service="x"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert call.replies == [SERVING]
        house.view.closing.set()
        while len(call.replies) < 2:
            await asyncio.sleep(0)
        assert call.replies == [SERVING, NOT_SERVING]
        assert await unary(house, check, health.HealthCheckRequest()) == NOT_SERVING
        assert other.replies == [health.HealthCheckResponse(status=health.HealthCheckResponse.SERVICE_UNKNOWN)]
        assert not other.ended
        receiver.on_gone()

    run(scenario())


def test_reflection_answers_each_question_as_the_client_takes_it(run: Run) -> None:
    async def scenario() -> None:
        procedure = PROCEDURES["/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]
        assert isinstance(procedure, Procedure)
        call = HandCall()
        receiver = procedure.open(HandHouse().house, call)
        question = reflection.ServerReflectionRequest(list_services="")
        receiver.on_message(question)
        assert len(call.replies) == 1
        call.takes_messages = False
        for _ in range(WAITING_MAX):
            receiver.on_message(question)
        with pytest.raises(Refused):
            receiver.on_message(question)
        receiver.on_half_close()
        assert (len(call.replies), call.ended) == (1, [])
        call.takes_messages = True
        receiver.on_room()
        assert (len(call.replies), call.ended) == (1 + WAITING_MAX, [None])

    run(scenario())
