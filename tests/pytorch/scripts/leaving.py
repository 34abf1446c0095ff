"""Uses a store and ends, with nothing closed. Started by the tests: `leaving.py ENDPOINTS RUN`."""

import sys
import threading

from raftkv.torch import RaftKVStore


def main(endpoints: str, run_id: str) -> None:
    store = RaftKVStore(endpoints, run_id)
    store.set("here", "1")
    # One that waits for what nobody writes, as threads of torch do.
    threading.Thread(target=store.get, args=("never",), daemon=True).start()
    assert store.add("number", 2) == 2
    print("ends", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
