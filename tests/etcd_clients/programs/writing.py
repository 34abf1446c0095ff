"""What the programs share: `raised`, and a writer that goes on whatever happens.

It prints `acknowledged KEY` or `failed KEY ERROR` for each key, until its standard input ends. Each key is written once and never again, so
that what was acknowledged can be looked for.
"""

import itertools
import sys
import threading
import time

PAUSE_SECONDS = 0.01


def raised(call, *words):
    """The exception that the call ends with."""
    try:
        call(*words)
    except Exception as error:
        return error
    raise AssertionError(f"not refused: {words}")


def write_for_ever(prefix, put):
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    for number in itertools.count():
        if over.is_set():
            return
        key = f"{prefix}{number:06d}"
        try:
            put(key, f"value of {key}")
        except Exception as error:
            print(f"failed {key} {type(error).__name__} {str(error)[:200]!r}", flush=True)
        else:
            print(f"acknowledged {key}", flush=True)
        time.sleep(PAUSE_SECONDS)
