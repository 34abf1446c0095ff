"""Authentication is switched on by etcd's own calls, so that raftkv and a real etcd begin alike."""

import http.client
import json
import time
from typing import Any, Final, Mapping

CALL_S: Final = 10.0
DEADLINE_S: Final = 30.0


def enable_authentication(endpoint: str, name: str, password: str) -> None:
    """A user with the role root, and the switch. Raises AssertionError when it is refused."""
    _insist(endpoint, "user/add", {"name": name, "password": password})
    _insist(endpoint, "role/add", {"role": "root", "name": "root"})
    _insist(endpoint, "user/grant", {"user": name, "role": "root"})
    _insist(endpoint, "enable", {})


def token_of(endpoint: str, name: str, password: str, *, timeout_s: float) -> str:
    """Empty when there is none to be had."""
    answer = ask(endpoint, "auth/authenticate", {"name": name, "password": password}, timeout_s=timeout_s)
    return "" if answer is None else str(answer.get("token", ""))


def ask(
    endpoint: str, path: str, question: Mapping[str, Any], *, timeout_s: float, token: str = ""
) -> dict[str, Any] | None:
    """A call of the JSON gateway; None when the member does not answer."""
    connection = http.client.HTTPConnection(endpoint, timeout=timeout_s)
    try:
        headers = {"Authorization": token} if token else {}
        connection.request("POST", f"/v3/{path}", json.dumps(question), headers)
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def _insist(endpoint: str, path: str, question: Mapping[str, Any]) -> None:
    """A cluster that has just begun may change its leader once more."""
    ends_s = time.monotonic() + DEADLINE_S
    while True:
        answer = ask(endpoint, f"auth/{path}", question, timeout_s=CALL_S)
        if answer is not None and ("code" not in answer or "already exists" in str(answer)):
            return
        assert time.monotonic() < ends_s, f"{path} was refused: {answer}"
        time.sleep(0.1)
