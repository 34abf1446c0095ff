"""The image's HEALTHCHECK: exit 0 if this member is ready (it has a leader and is caught up), else 1 and one line that says why.

Plain http.client instead of the command line: a check every few seconds must stay cheap, and it asks this member only, whatever
endpoints the container's environment names for the client.
"""

import http.client
import os
import sys

TIMEOUT_SECONDS = 2.5


def check_ready(listen: str) -> str:
    """The problem with the member that listens on `listen` (HOST:PORT), or "" if it is ready."""
    host, _, port = listen.rpartition(":")
    if host in ("", "0.0.0.0", "[::]", "*"):
        host = "127.0.0.1"
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read(1000).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from {host}:{port}: {error}"
    finally:
        connection.close()
    return "" if response.status == 200 else f"not ready ({response.status}): {body}"


if __name__ == "__main__":
    problem = check_ready(os.environ.get("RAFTKV_LISTEN", "0.0.0.0:2379"))
    if problem:
        print(problem)
    sys.exit(1 if problem else 0)
