"""torch's TCPStore (libuv backend) as a process of its own, so that its CPU can be read. Prints the port, ends with its standard input.

Only a master that lives in rank 0 is usual; here nobody else's work may be in its figure.
"""

import sys
from datetime import timedelta

from torch.distributed import TCPStore


def main() -> None:
    store = TCPStore(
        "127.0.0.1", 0, None, is_master=True, timeout=timedelta(seconds=600), wait_for_workers=False, use_libuv=True
    )
    print(store.port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
