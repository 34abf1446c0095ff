"""HTTP/1.1 on the client port: health, metrics, and what this member says about itself.

| path | answer |
|---|---|
| /livez, /readyz, /health, /version | how well this member is, and what it is (checks.py) |
| /metrics | Prometheus text |
| /status | a JSON object |
| /members | a JSON list; POST of a JSON object changes the membership (see docs/deployment.md), on the leader |
| / | a page for people |
| /v3/... | the JSON gateway of the etcd API |

It sees a MemberView and nothing else of the member. Paths and methods are a table; errors are JSON and never a traceback. The
one body that is read has to call itself JSON, so that a page in somebody's browser cannot send it unasked.
"""

import html
import json
import logging
from typing import Any, Awaitable, Callable, Final, Protocol, TypeAlias

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from raftkv.daemon.api.checks import CheckedView, health, livez, readyz, single_check, version
from raftkv.daemon.api.cors import SERVER, is_preflight, open_to_all
from raftkv.daemon.api.gate import Judge
from raftkv.errors import InvalidRequest, PermissionDenied, RaftKVError
from raftkv.transport.tls import names_of
from raftkv.wire.commands import OK, Answer, Command, error_of
from raftkv.wire.protocol import CHANGE_MEMBERS, MEMBERS, STATUS

logger = logging.getLogger(__name__)

ALLOWED_METHODS: Final = ("GET", "HEAD")
KEEP_ALIVE_S: Final = 75.0
LINGER_S: Final = 1.0  # how long the rest of an unwanted body is read before the connection is closed
HEAD_LINE_BYTES_MAX: Final = 8190
BODY_BYTES_MAX: Final = 65_536


class MemberView(CheckedView, Protocol):
    """What a member tells about itself, from memory."""

    def status(self) -> dict[str, Any]: ...

    def members(self) -> list[dict[str, Any]]: ...

    @property
    def metrics_text(self) -> Callable[[], bytes]: ...


CLIENT_LEFT: Final = 499  # as proxies write it down

ChangeMembers: TypeAlias = Callable[[Any], Awaitable[Answer]]
"""Carry out what a JSON object asks for; raises InvalidRequest."""

Page: TypeAlias = Callable[[MemberView, web.BaseRequest], web.Response | Awaitable[web.Response]]


class Gateway(Protocol):
    """The JSON gateway of the etcd API (daemon/api/gateway.py), if there is one."""

    def serves(self, path: str) -> bool: ...

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse: ...


def build_http_server(
    view: MemberView, change_members: ChangeMembers, judge: Judge, gateway: Gateway | None = None
) -> web.Server:
    """The factory of HTTP connections for daemon/mux.py; it needs a running event loop."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if is_preflight(request):
            return open_to_all(request, web.Response())
        if gateway is None or not gateway.serves(request.path):
            return open_to_all(request, await handle_page(request))
        try:
            return open_to_all(request, await gateway.handle(request))
        except ConnectionError:
            return web.Response(status=CLIENT_LEFT)  # nobody is there to get it
        except Exception:
            logger.exception("cannot answer %s", request.path)
            return open_to_all(request, error_response(500, "internal", "this is a bug in raftkv"))

    async def handle_page(request: web.BaseRequest) -> web.Response:
        page = PAGES.get(request.path) or single_check(request.path)
        if page is None:
            return error_response(404, "not_found", f"there is nothing at {request.path}")
        takes_post = page is members
        allowed = (*ALLOWED_METHODS, "POST") if takes_post else ALLOWED_METHODS
        if request.method not in allowed:
            response = error_response(405, "method_not_allowed", f"{request.path} takes {' and '.join(allowed)}")
            response.headers["Allow"] = ", ".join(allowed)
            return response
        try:
            if page in NEEDS:
                command = [CHANGE_MEMBERS, {}] if request.method == "POST" else NEEDS[page]
                certificate_name = names_of(request.transport)[0] if request.transport is not None else ""
                refusal = await judge(command, request.headers.get("Authorization"), certificate_name)
                if refusal is not None:
                    return _login_response(refusal)
            if request.method == "POST":
                return await _post_members(request, change_members)
            answer = page(view, request)
            return answer if isinstance(answer, web.Response) else await answer
        except Exception:
            # Nothing here decides anything: a page that breaks is a bug, and no reason for a member to stop.
            logger.exception("cannot answer %s", request.path)
            return error_response(500, "internal", "this is a bug in raftkv; the log has the details")

    return _Server(
        handle,
        handler_cancellation=True,  # a stream or a lock that is waited for ends with its client
        access_log=None,
        keepalive_timeout=KEEP_ALIVE_S,
        lingering_time=LINGER_S,
        max_line_size=HEAD_LINE_BYTES_MAX,
        max_field_size=HEAD_LINE_BYTES_MAX,
    )


def error_response(status: int, code: str, message: str) -> web.Response:
    """An error as JSON, with a code of the same kind as raftkv/errors.py has."""
    return _json({"code": code, "message": message}, status)


def _login_response(error: RaftKVError) -> web.Response:
    """401 asks a browser for name and password."""
    response = _refusal(error, 403 if isinstance(error, PermissionDenied) else 401)
    if response.status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="raftkv", charset="UTF-8"'
    return response


# Pages.


def metrics(view: MemberView, request: web.BaseRequest) -> web.Response:
    return web.Response(body=view.metrics_text(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def status(view: MemberView, request: web.BaseRequest) -> web.Response:
    return _json(view.status())


def members(view: MemberView, request: web.BaseRequest) -> web.Response:
    return _json(view.members())


async def _post_members(request: web.BaseRequest, change_members: ChangeMembers) -> web.Response:
    if request.content_type != "application/json":
        return error_response(415, "unsupported", "the body must be application/json")
    try:
        text = await request.content.read(BODY_BYTES_MAX + 1)
        if len(text) > BODY_BYTES_MAX:
            raise InvalidRequest(f"the body has more than {BODY_BYTES_MAX} bytes")
        answer = await change_members(json.loads(text))
    except ValueError as error:
        return error_response(400, InvalidRequest.code, f"the body is not JSON: {error}")
    except InvalidRequest as error:
        return _refusal(error, 400)
    return _json(answer[1]) if answer[0] == OK else _refusal(error_of(answer), 409)


def _refusal(error: RaftKVError, status_code: int) -> web.Response:
    content = {"code": error.code, "message": error.message, "details": error.details}
    return _json(content | {"may_have_happened": error.may_have_happened}, status_code)


def index(view: MemberView, request: web.BaseRequest) -> web.Response:
    """The status as a table, without any script."""
    ready, reason = view.readiness()
    rows = "".join(
        f"<tr><th>{_escape(name)}</th><td>{_escape(value)}</td></tr>" for name, value in view.status().items()
    )
    links = " · ".join(f'<a href="{path}">{path}</a>' for path in PAGES if path != "/")
    readiness = "ready" if ready else f"not ready: {_escape(reason)}"
    text = _INDEX.format(name=_escape(view.status().get("name", "")), readiness=readiness, rows=rows, links=links)
    return web.Response(text=text, content_type="text/html", charset="utf-8")


PAGES: Final[dict[str, Page]] = {
    "/": index,
    "/livez": livez,
    "/readyz": readyz,
    "/health": health,
    "/metrics": metrics,
    "/status": status,
    "/members": members,
    "/version": version,
}

NEEDS: Final[dict[Page, Command]] = {index: [STATUS], status: [STATUS], members: [MEMBERS]}
"""Pages that say more than whether this member is well, and the request that they are judged as while authentication is on."""

_INDEX: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>raftkv {name}</title>
<style>body{{font:15px/1.5 sans-serif;margin:2em auto;max-width:44em;padding:0 1em;color:#222;background:#fff}}
th{{text-align:left;padding-right:2em;font-weight:normal;color:#555}}td{{font-family:monospace;overflow-wrap:anywhere}}
@media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}th{{color:#999}}a{{color:#8bf}}}}</style></head>
<body><h1>raftkv member {name}</h1><p>{readiness}</p><table>{rows}</table><p>{links}</p></body>
</html>
"""


def _json(content: Any, status_code: int = 200) -> web.Response:
    # Compact, as etcd writes it: scripts look for {"health":"true".
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), default=repr) + "\n"
    return web.Response(text=text, status=status_code, content_type="application/json")


def _escape(value: Any) -> str:
    return html.escape(value if isinstance(value, str) else json.dumps(value, default=repr))


class _Connection(web.RequestHandler):
    """aiohttp's, except that broken requests are answered in JSON and do not fill the log."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer is not None and request.writer.output_size > 0:
            raise ConnectionError("the answer has begun: it cannot become an error")
        if status >= 500:
            logger.error("HTTP request failed", exc_info=exc)
        # aiohttp's text quotes the broken bytes over several lines: its first line says what is wrong.
        first_line = (message or "").strip().partition("\n")[0].rstrip(":")
        code, text = ("bad_request", first_line) if status < 500 else ("internal", "the log has the details")
        response = error_response(status, code, text or "this is no HTTP request")
        response.headers.update(SERVER)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


__all__ = ["MemberView", "build_http_server", "error_response"]
