"""`raftkv torch-proxy`: a TCPStore for unmodified scripts of PyTorch on this machine, with the cluster behind it."""

import asyncio
import signal

from raftkv.client.endpoints import split_address
from raftkv.errors import ConfigError
from raftkv_cli import exits
from raftkv_cli.connect import login
from raftkv_cli.output import write_line
from raftkv_cli.spec import Call, Option, UsageError, Verb, integer_at_least, positive_seconds

DEFAULT_LISTEN = "127.0.0.1:29500"


def run(call: Call) -> int:
    run_id = call.text("--run-id")
    if not run_id:
        raise UsageError("--run-id is required: ranks of one job meet under it, and see no other job")
    try:
        host, port = listen_address(call.text("--listen", DEFAULT_LISTEN))
    except ConfigError as error:
        raise UsageError(f"--listen: {error.message}") from None
    user, password = login(call.settings)  # asks for a password while there is a terminal
    asyncio.run(serve(call, host, port, run_id, user, password))
    return exits.OK


def listen_address(text: str) -> tuple[str, int]:
    """Port 0 is one that is free, as `ready` tells. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    return (split_address(host + ":1")[0], 0) if colon and port == "0" else split_address(text)


async def serve(call: Call, host: str, port: int, run_id: str, user: str | None, password: str) -> None:
    """Until it is told to end."""
    import raftkv
    from raftkv.torch.proxy import Proxy
    from raftkv.torch.where import CALL_TIMEOUT_S

    loop, end = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end.set)
    settings = call.settings
    timeout = settings.timeout_seconds if "--timeout" in call.options else CALL_TIMEOUT_S
    async with (
        raftkv.connect(
            ",".join(settings.endpoints),
            cluster_name=settings.cluster_name,
            timeout=timeout,
            user=user,
            password=password,
            tls=settings.tls,
        ) as kv,
        kv.rendezvous(run_id, call.number("--round"), ttl=call.seconds("--ttl", 30.0)) as store,
        Proxy(store, host, port) as proxy,
    ):
        write_line(f"ready: MASTER_ADDR={host} MASTER_PORT={proxy.port}")
        await end.wait()


VERB = Verb(
    name="torch-proxy",
    summary="serve PyTorch's TCPStore protocol on this machine",
    run=run,
    options=(
        Option(
            "--listen", f"where its clients find it (default {DEFAULT_LISTEN}); port 0: any that is free", "HOST:PORT"
        ),
        Option("--run-id", "the job whose ranks meet here; required", "RUN"),
        Option("--round", "which of its restarts (default 0)", "NUMBER", convert=integer_at_least(0)),
        Option("--ttl", "how long the round outlives its last proxy (default 30)", "SECONDS", convert=positive_seconds),
    ),
    description="That protocol knows neither logins nor names of jobs: listen on loopback, one proxy for each job on each machine.",
    examples=(
        ("raftkv torch-proxy --run-id job-7", "then start the ranks with MASTER_ADDR=127.0.0.1 MASTER_PORT=29500"),
    ),
)
