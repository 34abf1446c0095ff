"""etcd through grpc.aio, what most Python programs use; requests are encoded by hand and answers left as bytes."""

from typing import Any, Sequence

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from drivers.etcd_messages import PUT_PATH, RANGE_PATH, TXN_PATH, put_request, range_request, txn_request


class EtcdGrpcioTarget:
    """One channel to the first endpoint."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._put = channel.unary_unary(PUT_PATH)
        self._range = channel.unary_unary(RANGE_PATH)
        self._txn = channel.unary_unary(TXN_PATH)

    @classmethod
    async def connect(cls, endpoints: Sequence[str]) -> "EtcdGrpcioTarget":
        return cls(grpc.aio.insecure_channel(endpoints[0]))

    async def put(self, key: bytes, value: bytes) -> None:
        await self._put(put_request(key, value))

    async def get(self, key: bytes) -> None:
        await self._range(range_request(key))

    async def txn(self, key: bytes, value: bytes) -> None:
        await self._txn(txn_request(key, value))

    async def close(self) -> None:
        await self._channel.close()
