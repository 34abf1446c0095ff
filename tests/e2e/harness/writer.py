"""A client that writes numbered keys and prints what came of each; runs outside or inside a container, until it is killed.

Arguments: endpoints, prefix. One line per write: `ok NUMBER`, or `unknown NUMBER CODE` when it may have happened, or
`failed NUMBER CODE` when it surely has not.
"""

import sys
import time

import raftkv

PAUSE_SECONDS = 0.01


def main(endpoints: str, prefix: str) -> None:
    with raftkv.Client(endpoints) as kv:
        number = 0
        while True:
            number += 1
            try:
                kv.put(f"{prefix}{number}".encode(), str(number).encode())
                print("ok", number, flush=True)
            except raftkv.RaftKVError as error:
                print("unknown" if error.may_have_happened else "failed", number, error.code, flush=True)
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
