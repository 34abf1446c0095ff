"""etcd's gRPC API as the harness's client, by grpcio: to a real etcd, and to raftkv through its door. The same calls, so the same judges.

One channel per member, made anew after a failure that may lie in the connection; a client stays with its member until a call fails there. The
library's own retries are off. A call of which nothing can have left this process is refused; every other failure of a write is unknown.
"""

import asyncio
from typing import Any, AsyncIterator, Final, Mapping, Sequence

import grpc
import grpc.aio

from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv.wire.commands import prefix_range_end
from raftkv_jepsen.clients.base import Batch, Change, ClientError, Held, Lock, Recipes, Transacted
from raftkv_jepsen.clients.elections import Election, GatewayElection
from raftkv_jepsen.clients.gateway import SURELY_NOT, TOKEN_IS_NONE, Gateway
from raftkv_jepsen.clients.users import GatewayUsers, Users

TIMEOUT_S: Final = 4.0
PINNED_TIMEOUT_S: Final = 2.0
OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A member that was killed while its packets were lost leaves connections that say nothing for ever. etcd allows a ping per 5 s.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
)
UNSENT: Final = ("failed to connect to all addresses", "Connection refused", *SURELY_NOT)
UNKNOWN_CODES: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


def error_of(error: grpc.aio.AioRpcError) -> ClientError:
    """Refusals by etcd's own rules come with other codes; they surely did nothing."""
    code, details = error.code(), str(error.details())
    unknown = code in UNKNOWN_CODES and not any(words in details for words in UNSENT)
    return ClientError(f"{code.name}: {details}"[:200], may_have_happened=unknown)


class EtcdClient:
    """One process of the history."""

    features: frozenset[str] = frozenset()

    def __init__(
        self, endpoints: Sequence[str], addresses: Mapping[str, str], *, login: tuple[str, str] | None = None
    ) -> None:
        self.session = False
        self._login = login
        self._token = ""
        self._gateway = Gateway(addresses, login)
        self._endpoints = list(endpoints)
        self._addresses = addresses
        self._turn = 0
        self._channels: dict[str, Any] = {}
        self._leases_of: dict[int, str] = {}

    async def close(self) -> None:
        await self._gateway.close()
        for channel in self._channels.values():
            await channel.close()

    def _channel(self, endpoint: str) -> Any:
        if endpoint not in self._channels:
            self._channels[endpoint] = grpc.aio.insecure_channel(endpoint, options=OPTIONS)
        return self._channels[endpoint]

    @property
    def _endpoint(self) -> str:
        return self._endpoints[self._turn % len(self._endpoints)]

    async def _identity(self, node: str = "") -> list[tuple[str, str]]:
        """Metadata of a call. A token is kept until a member says that it is none. Raises ClientError."""
        if self._login is None:
            return []
        if not self._token:
            request = rpc.AuthenticateRequest(name=self._login[0], password=self._login[1])
            try:
                answer = await self._call_as(None, "Auth/Authenticate", request, rpc.AuthenticateResponse, node=node)
            except ClientError as error:
                raise ClientError(str(error), may_have_happened=False) from error  # nothing was asked for yet
            self._token = answer.token
        return [("token", self._token)]

    def _look_at(self, error: ClientError) -> None:
        if any(words in str(error) for words in TOKEN_IS_NONE):
            self._token = ""

    async def _call(self, method: str, request: Any, answer: Any, *, node: str = "") -> Any:
        """Raises ClientError; then the next call goes to the next member. A member that has forgotten a token is asked again, with a new one."""
        known = self._token
        try:
            return await self._call_as(await self._identity(node), method, request, answer, node=node)
        except ClientError:
            if not known or self._token:
                raise
        return await self._call_as(await self._identity(node), method, request, answer, node=node)

    async def _call_as(self, identity: Any, method: str, request: Any, answer: Any, *, node: str) -> Any:
        endpoint = self._addresses[node] if node else self._endpoint
        call = self._channel(endpoint).unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            return await call(request, timeout=PINNED_TIMEOUT_S if node else TIMEOUT_S, metadata=identity)
        except grpc.aio.AioRpcError as error:
            if error.code() in UNKNOWN_CODES:
                await self._leave(endpoint)
            refusal = error_of(error)
            self._look_at(refusal)
            raise refusal from error
        except asyncio.CancelledError:
            if _is_ending():
                raise
            # Its channel was closed by another call: grpcio says so with the words that asyncio has for a task.
            raise ClientError("the channel was closed", may_have_happened=True) from None

    async def _leave(self, endpoint: str) -> None:
        if endpoint == self._endpoint:
            self._turn += 1
        channel = self._channels.pop(endpoint, None)
        if channel is not None:
            await channel.close(grace=TIMEOUT_S)  # other calls of this client may be under way on it

    async def get(self, key: str, *, node: str = "") -> Held | None:
        found = await self._call("KV/Range", rpc.RangeRequest(key=key.encode()), rpc.RangeResponse, node=node)
        if not found.kvs:
            return None
        kv = found.kvs[0]
        return Held(kv.value.decode(), kv.create_revision, kv.mod_revision)

    async def keys(self, prefix: str) -> list[str]:
        start = prefix.encode()
        request = rpc.RangeRequest(key=start, range_end=prefix_range_end(start), keys_only=True)
        return [kv.key.decode() for kv in (await self._call("KV/Range", request, rpc.RangeResponse)).kvs]

    async def put(self, key: str, value: str, *, lease: int = 0) -> int:
        request = rpc.PutRequest(key=key.encode(), value=value.encode(), lease=lease)
        return int((await self._call("KV/Put", request, rpc.PutResponse)).header.revision)

    async def compare_and_set(self, key: str, expected: str | None, value: str) -> bool:
        return (await self.transact({key: expected}, {key: value}, [])).succeeded

    async def transact(
        self, expected: Mapping[str, str | None], writes: Mapping[str, str], reads: Sequence[str]
    ) -> Transacted:
        looks = [rpc.RequestOp(request_range=rpc.RangeRequest(key=key.encode())) for key in reads]
        puts = [
            rpc.RequestOp(request_put=rpc.PutRequest(key=key.encode(), value=value.encode()))
            for key, value in writes.items()
        ]
        request = rpc.TxnRequest(
            compare=[_compare(key, value) for key, value in expected.items()], success=[*looks, *puts], failure=looks
        )
        done = await self._call("KV/Txn", request, rpc.TxnResponse)
        read: dict[str, str | None] = {}
        for key, response in zip(reads, done.responses, strict=False):
            kvs = response.response_range.kvs
            read[key] = kvs[0].value.decode() if kvs else None
        return Transacted(bool(done.succeeded), read, int(done.header.revision))

    async def increment(self, key: str, delta: int) -> int:
        raise NotImplementedError("etcd has no increment")

    async def append(self, key: str, text: str) -> int:
        raise NotImplementedError("etcd has no append")

    async def grant(self, ttl_s: float) -> tuple[int, float]:
        request = rpc.LeaseGrantRequest(TTL=int(ttl_s))
        granted = await self._call("Lease/LeaseGrant", request, rpc.LeaseGrantResponse)
        return int(granted.ID), float(granted.TTL)

    async def revoke(self, lease: int) -> None:
        await self._call("Lease/LeaseRevoke", rpc.LeaseRevokeRequest(ID=lease), rpc.LeaseRevokeResponse)

    async def keep_alive(self, lease: int) -> float:
        """One round of a stream, as etcd's clients do it."""
        identity = await self._identity()
        endpoint = self._endpoint
        stream = self._channel(endpoint).stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc.LeaseKeepAliveResponse.FromString,
        )(timeout=TIMEOUT_S, metadata=identity)
        try:
            await stream.write(rpc.LeaseKeepAliveRequest(ID=lease))
            answer = await stream.read()
        except grpc.aio.AioRpcError as error:
            await self._leave(endpoint)
            refusal = error_of(error)
            self._look_at(refusal)
            raise refusal from error
        except asyncio.InvalidStateError as error:
            raise ClientError("the stream ended", may_have_happened=True) from error
        finally:
            stream.cancel()
        if answer is grpc.aio.EOF:
            raise ClientError("the stream ended", may_have_happened=True)
        if answer.TTL <= 0:
            raise ClientError("the lease does not exist", may_have_happened=False)
        return float(answer.TTL)

    async def watch(self, prefix: str, start_revision: int) -> AsyncIterator[Batch]:
        start = prefix.encode()
        identity = await self._identity()
        # A channel of its own: that of other calls is closed when one of them fails.
        channel = grpc.aio.insecure_channel(self._endpoint, options=OPTIONS)
        stream = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc.WatchRequest.SerializeToString,
            response_deserializer=rpc.WatchResponse.FromString,
        )(metadata=(("hasleader", "true"), *identity))
        wanted = rpc.WatchCreateRequest(
            key=start,
            range_end=prefix_range_end(start),
            start_revision=start_revision,
            progress_notify=True,
            prev_kv=True,
        )
        try:
            await stream.write(rpc.WatchRequest(create_request=wanted))
            while (answer := await stream.read()) is not grpc.aio.EOF:
                if answer.canceled:
                    words = f"canceled: {answer.cancel_reason}, compacted {answer.compact_revision}"
                    refusal = ClientError(words, may_have_happened=False, history_begins=answer.compact_revision)
                    self._look_at(refusal)
                    raise refusal
                for batch in _batches(answer):
                    yield batch
        except grpc.aio.AioRpcError as error:
            raise error_of(error) from error
        finally:
            stream.cancel()
            self._turn += 1
            await channel.close()

    def election(self, name: str, ttl_s: float) -> Election:
        return GatewayElection(self._gateway, list(self._addresses), name, ttl_s)

    @property
    def users(self) -> Users:
        return GatewayUsers(self._gateway, list(self._addresses))

    @property
    def recipes(self) -> Recipes:
        raise NotImplementedError("recipes are raftkv's")

    def lock(self, name: str, ttl_s: float) -> Lock:
        raise NotImplementedError("etcd has no locks of raftkv.recipes")


class GrpcDoor:
    """One user at gRPC, at the member that is named."""

    def __init__(self, addresses: Mapping[str, str], login: tuple[str, str]) -> None:
        self._client = EtcdClient(list(addresses.values()), addresses, login=login)

    async def get(self, key: str, *, node: str) -> Held | None:
        return await self._client.get(key, node=node)

    async def put(self, key: str, value: str, *, node: str) -> int:
        request = rpc.PutRequest(key=key.encode(), value=value.encode())
        return int((await self._client._call("KV/Put", request, rpc.PutResponse, node=node)).header.revision)

    async def close(self) -> None:
        await self._client.close()


def _is_ending() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _compare(key: str, value: str | None) -> Any:
    if value is None:
        return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.VERSION, key=key.encode(), version=0)
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, key=key.encode(), value=value.encode())


def _batches(answer: Any) -> list[Batch]:
    """A response may hold several revisions, and holds each whole."""
    if not answer.events:
        return [] if answer.created else [Batch(int(answer.header.revision), [])]
    batches: list[Batch] = []
    for event in answer.events:
        revision = int(event.kv.mod_revision)
        if not batches or batches[-1].revision != revision:
            batches.append(Batch(revision, []))
        previous = event.prev_kv.value.decode() if event.HasField("prev_kv") else None
        kind = "delete" if event.type else "put"
        batches[-1].changes.append(Change(kind, event.kv.key.decode(), event.kv.value.decode(), previous))
    return batches
