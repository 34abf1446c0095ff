"""Health as people, Kubernetes and etcd's clients ask for it over HTTP.

| path | answer |
|---|---|
| /livez | 200 while this process works: whoever restarts it otherwise is right |
| /readyz | 200, or 503 with what speaks against sending clients here |
| /livez/NAME, /readyz/NAME | one check of these alone |
| /health | as etcd: {"health":"true","reason":""}, or 503 with "false" and the reason |
| /version | which etcd it says it is, and its own version |

`?verbose` lists the checks, `?exclude=NAME` (repeatable) leaves some out; of /health it leaves out an alarm, and `?serializable=true` asks
for what this member can answer alone. The texts are etcd's, because scripts look for them.
"""

import json
from typing import Any, Awaitable, Callable, Final, Mapping, Protocol, TypeAlias

from aiohttp import web

import raftkv
from raftkv.daemon.facts import Facts
from raftkv.daemon.probing import Looks
from raftkv.errors import Overloaded, RaftKVError
from raftkv.etcd.versions import version_document
from raftkv.wire.alarms import CORRUPT, NOSPACE


class CheckedView(Protocol):
    """What is looked at."""

    @property
    def looks(self) -> Looks: ...

    def facts(self) -> Facts: ...

    def readiness(self) -> tuple[bool, str]: ...

    async def read(self, *, serializable: bool) -> None:
        """As a client would. Raises RaftKVError."""
        ...


Check: TypeAlias = Callable[[CheckedView], Awaitable[str]]
"""What speaks against it; nothing if all is well."""


async def _serializable_read(view: CheckedView) -> str:
    return await _read(view, serializable=True)


async def _linearizable_read(view: CheckedView) -> str:
    return await _read(view, serializable=False)


async def _alive(view: CheckedView) -> str:
    """A store that is being replaced by a snapshot answers nothing, and a restart would only begin that anew."""
    try:
        await view.read(serializable=True)
    except Overloaded:
        return ""
    except RaftKVError as error:
        return error.message
    return ""


async def _read(view: CheckedView, *, serializable: bool) -> str:
    try:
        await view.read(serializable=serializable)
    except RaftKVError as error:
        return error.message
    return ""


async def _data_corruption(view: CheckedView) -> str:
    return "alarm activated: CORRUPT" if any(kind == CORRUPT for _, kind in view.facts().alarms) else ""


async def _ready(view: CheckedView) -> str:
    good, reason = view.readiness()
    return "" if good else reason


async def _non_learner(view: CheckedView) -> str:
    return "this member has no vote" if view.facts().is_learner else ""


LIVENESS: Final[Mapping[str, Check]] = {"serializable_read": _alive}
READINESS: Final[Mapping[str, Check]] = {
    "data_corruption": _data_corruption,
    "serializable_read": _serializable_read,
    "linearizable_read": _linearizable_read,
    "ready": _ready,
}
APART: Final[Mapping[str, Check]] = {"non_learner": _non_learner}
"""Only where it is named: a learner of raftkv answers clients like any other member."""


async def livez(view: CheckedView, request: web.BaseRequest) -> web.Response:
    return await _run(view, request, "livez", LIVENESS)


async def readyz(view: CheckedView, request: web.BaseRequest) -> web.Response:
    return await _run(view, request, "readyz", READINESS)


def single_check(path: str) -> Callable[[CheckedView, web.BaseRequest], Awaitable[web.Response]] | None:
    """The page of one check, by its path; None when there is none of that name."""
    _, kind, *names = path.split("/")
    known = {"livez": LIVENESS, "readyz": {**READINESS, **APART}}.get(kind, {})
    if len(names) != 1 or names[0] not in known:
        return None
    name = names[0]
    return lambda view, request: _run(view, request, kind, {name: known[name]})


async def _run(view: CheckedView, request: web.BaseRequest, kind: str, checks: Mapping[str, Check]) -> web.Response:
    excluded = set(request.query.getall("exclude", []))
    lines, failed = [], False
    for name, check in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok\n")
            continue
        reason = await check(view)
        view.looks.note(kind, name, not reason)
        failed = failed or bool(reason)
        lines.append(f"[-]{name} failed: {reason}\n" if reason else f"[+]{name} ok\n")
    if unknown := sorted(excluded - checks.keys()):
        lines.append(f"warn: some health checks cannot be excluded: no matches for {', '.join(map(repr, unknown))}\n")
    if failed:
        return web.Response(text="".join(lines), status=503)
    return web.Response(text=("".join(lines) if "verbose" in request.query else "") + "ok\n")


async def health(view: CheckedView, request: web.BaseRequest) -> web.Response:
    excluded = set(request.query.getall("exclude", []))
    reason = await _illness(view, excluded, serializable=request.query.get("serializable") == "true")
    if reason:
        view.looks.unhealthy += 1
    else:
        view.looks.healthy += 1
    # Strings, plain text, and a newline after bad news: byte for byte etcd's.
    text = _json({"health": "false" if reason else "true", "reason": reason})
    return web.Response(text=f"{text}\n", status=503) if reason else web.Response(text=text)


async def _illness(view: CheckedView, excluded: set[str], *, serializable: bool) -> str:
    """The first thing that etcd would complain of; a disk that takes no writes is as bad as its alarm."""
    facts = view.facts()
    kinds = {kind for _, kind in facts.alarms} | (set() if facts.takes_writes else {NOSPACE})
    for kind, name in ((NOSPACE, "NOSPACE"), (CORRUPT, "CORRUPT")):
        if kind in kinds and name not in excluded:
            return f"ALARM {name}"
    if not serializable and not facts.leader:
        return "RAFT NO LEADER"
    try:
        await view.read(serializable=serializable)
    except RaftKVError as error:
        return f"RANGE ERROR:{error.message}"
    return ""


async def version(view: CheckedView, request: web.BaseRequest) -> web.Response:
    text = _json(version_document(is_founded=bool(view.facts().cluster_id), own_version=raftkv.__version__))
    return web.Response(body=text.encode(), headers={"Content-Type": "application/json"})


def _json(content: Any) -> str:
    # Compact, as etcd writes it: scripts look for {"health":"true".
    return json.dumps(content, separators=(",", ":"))
