"""`raftkv health`: ask every endpoint's /readyz, all within one timeout.

It asks over HTTP and not over the native protocol: this is what load balancers and container engines see.
"""

from raftkv.client.tls import TlsConnector
from raftkv_cli import exits
from raftkv_cli.connect import only_raftkv
from raftkv_cli.output import write_json, write_line, write_table
from raftkv_cli.probe import ProbeReply, probe_all
from raftkv_cli.spec import Call, Verb


def run(call: Call) -> int:
    endpoints, settings = call.settings.endpoints, call.settings
    only_raftkv(settings, "health", "`raftkv status` or `etcdctl endpoint health`")
    tls = None if settings.tls is None else TlsConnector(settings.tls)
    replies = list(zip(endpoints, probe_all(endpoints, "/readyz", settings.timeout_seconds, tls), strict=True))
    healthy_count = sum(reply.ok for _, reply in replies)
    if call.output == "json":
        write_json([document(endpoint, reply) for endpoint, reply in replies])
    elif call.output == "table":
        rows = [(endpoint, word(reply), took_ms(reply), reason(reply)) for endpoint, reply in replies]
        write_table(("endpoint", "health", "took ms", "reason"), rows)
    else:
        for endpoint, reply in replies:
            why = f": {reason(reply)}" if reason(reply) else ""
            write_line(f"{endpoint} {word(reply)} ({took_ms(reply)} ms){why}")
    if healthy_count == len(replies):
        return exits.OK
    return exits.FAILED if any(reply.status for _, reply in replies) else exits.NOT_DONE


def word(reply: ProbeReply) -> str:
    if reply.ok:
        return "healthy"
    return "not ready" if reply.status else "unreachable"


def reason(reply: ProbeReply) -> str:
    """What has failed, without the checks that have not; nothing when all is well."""
    if reply.ok:
        return ""
    checks = reply.text.split("[")
    failed = [check.removeprefix("-]").strip() for check in checks if check.startswith("-]")]
    return "; ".join(failed) or reply.text


def took_ms(reply: ProbeReply) -> str:
    return f"{reply.seconds * 1000:.1f}"


def document(endpoint: str, reply: ProbeReply) -> dict[str, object]:
    return {
        "endpoint": endpoint,
        "healthy": reply.ok,
        "health": word(reply),
        "took_ms": round(reply.seconds * 1000, 3),
        "reason": reason(reply) or None,
    }


VERB = Verb(
    name="health",
    summary="can the endpoints serve right now?",
    description="Asks every endpoint whether it has a leader and is caught up. Exit 0: all are healthy; 1: some are not; 4: none answered.",
    run=run,
    examples=(
        ("raftkv health", "the member at 127.0.0.1:2379"),
        ("raftkv health --endpoints a:2379,b:2379,c:2379 -o json", "all three, for a script"),
    ),
)
