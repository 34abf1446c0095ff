"""Headers of every answer. Who may read it: pages of any origin, as with etcd's default; browsers ask for it with OPTIONS.

Not so where a request changes the member itself: a page in somebody's browser has no business there.
"""

from typing import Final

from aiohttp import web

CORS_HEADERS: Final = {
    "Access-Control-Allow-Headers": "accept, content-type, authorization",
    "Access-Control-Allow-Methods": "POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Origin": "*",
}
SERVER: Final = {"Server": "raftkv"}
"""Which versions of Python and its libraries run here is nobody's business."""
CLOSED_PATHS: Final = frozenset({"/members"})


def is_preflight(request: web.BaseRequest) -> bool:
    return request.method == "OPTIONS" and request.path not in CLOSED_PATHS


def open_to_all(request: web.BaseRequest, response: web.StreamResponse) -> web.StreamResponse:
    """The same response, readable for pages of any origin. One that has begun is so already."""
    if not response.prepared:
        response.headers.update(SERVER if request.path in CLOSED_PATHS else {**CORS_HEADERS, **SERVER})
    return response
