"""What a leader's Python costs per put, by stage, in one process: frames in, answers out, no socket, no disk, one member.

    python bench/leader_cost.py [BATCH ...]        default 1 16 128 512

CPU time of the thread, so neighbours disturb little. What a real leader pays besides (system calls, two followers, LMDB, the
struggle for the interpreter lock) is the difference to the CPU column of bench/compare.py.
"""

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from raftkv.wire.commands import PUT
from raftkv.wire.protocol import ACK, new_packer
from tests.unit.daemon.test_native import SESSION, Line

PUTS = 20_000
KEYS = 1_000


def frames_of(batch: int) -> list[bytes]:
    """What a client with a session sends: one notice and `batch` puts per frame."""
    pack = new_packer().pack
    frames, sequence = [], 0
    for number in range(PUTS // batch):
        parts = [pack([0, 0, [ACK, sequence + 1, number == 0]])]
        for position in range(batch):
            sequence += 1
            key = b"key%d/%d" % (position, number % KEYS)
            parts.append(pack([sequence + 1, 5_000, [PUT, sequence, key, b"v" * 128, 0, 0]]))
        frames.append(b"".join(parts))
    return frames


def measure(batch: int) -> tuple[float, float, float]:
    """CPU-us per put: receive, propose, and commit with apply and answer."""
    line = Line()
    line.greet(session=SESSION)
    member, clock = line.member, time.thread_time
    receive = propose = finish = 0.0
    for frame in frames_of(batch):
        started = clock()
        line.door.data_received(frame)
        received = clock()
        member.service.flush(line.cluster.now_ms)
        proposed = clock()
        member.replica.pump()
        member.journal.reported = len(member.journal.saves)
        member.replica.on_journal_saved(member.journal.reported)
        member.replica.pump()
        finish += clock() - proposed
        receive += received - started
        propose += proposed - received
        line.transport.written.clear()
        if not member.storage.store.has_room:
            member.storage.commit()
            member.replica.compact_log()
    assert member.service.is_idle, "every put was answered"
    return receive / PUTS * 1e6, propose / PUTS * 1e6, finish / PUTS * 1e6


async def main() -> None:
    for batch in [int(argument) for argument in sys.argv[1:]] or [1, 16, 128, 512]:
        receive, propose, finish = measure(batch)
        total = receive + propose + finish
        print(
            f"batch {batch:>3}: receive {receive:5.2f}  propose {propose:5.2f}  apply and answer {finish:5.2f}  total {total:5.2f} us per put"
        )


if __name__ == "__main__":
    asyncio.run(main())
