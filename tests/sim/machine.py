"""What survives the death of a process: a disk, a keyspace, a clock, an identity. Starts processes and ends them in every way.

A kill leaves the page cache; a power loss leaves of what was not synced any part, and may hit the log between any two operations
of the disk, also while a start repairs it. Rot in an old segment is found at the next start, and the machine stays down.
"""

import errno
import os
from typing import TYPE_CHECKING, Any, Callable

from raftkv.errors import Corruption, DiskFailure, NoSpace
from raftkv.units import NodeId
from raftkv.wal.fakedisk import FakeDisk
from raftkv.wal.record import Identity
from raftkv.wal.recovery import Recovered
from raftkv.wal.wal import Wal

from .clock import Clock
from .process import Process
from .storage import SimKeyspace

if TYPE_CHECKING:
    from .world import World

LOG_DIRECTORY = "/log"
RESTART_US = 500_000
POWER_LOSS_OPERATIONS_MAX = 8
DETECTION_US = 5_000


class PowerLoss(BaseException):
    """The power (or the process) is gone in the middle of an operation: nothing after it happens. No OSError, so nobody handles it."""


class Machine:
    """One computer."""

    def __init__(self, world: "World", node_id: NodeId) -> None:
        random = world.stream(f"machine {node_id}")
        drift = world.knobs.drift_max
        self.world = world
        self.node_id = node_id
        self.name = f"n{node_id}"
        self.address = f"n{node_id}:2379"
        self.peer_address = f"n{node_id}:2380"
        self.incarnation = random.getrandbits(62) or 1
        self.clock = Clock(random.randrange(10**9), 1 + drift * (2 * random.random() - 1))
        self.disk = FakeDisk(fault=self._fault, sector_bytes=world.knobs.sector_bytes)
        self.disk_is_full = False
        self.failing_syncs = False
        self.extra_sync_us = 0
        self.keyspace = SimKeyspace(self)
        self.books = world.checks.books_of(node_id)
        self.process: Process | None = None
        self.lives = 0
        self.rotten = False  # its log is damaged: it never starts again
        self.held_down = False  # nobody restarts it
        self.retired = False  # it was a member once: it never starts again
        self.inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []  # of a paused process
        self.ticks_late = False
        self._paused_until_us = 0
        self._random = random
        self._operations_left = -1  # until the power is lost; negative: never

    # Starting.

    def start(self) -> None:
        """Start the process, unless something forbids it; it may fail, then it is tried again."""
        if self.process is not None or self.held_down or self.rotten or self.retired:
            return
        self.lives += 1
        try:
            process = Process(self)
        except PowerLoss:
            self._after_power_loss()
        except Corruption as error:
            self.world.checks.expect_corruption(self, error)
            self.rotten = True
        except (DiskFailure, NoSpace) as error:
            self.world.tell(f"{self.name} cannot start: {error.code}")
            self.disk.kill()
            self.restart_later()
        else:
            self.world.tell(
                f"{self.name} starts in term {process.raft.term}, its log ends at {process.raft.last_index}/{process.raft.last_term}"
            )
            self.process = process
            process.start()
        self._operations_left = -1

    def open_log(self) -> tuple[Wal, Recovered]:
        """As daemon/member.py does. Raises Corruption, DiskFailure, NoSpace, PowerLoss."""
        limits, disk = self.world.knobs.limits, self.disk
        if not Wal.exists(disk, LOG_DIRECTORY):
            identity = Identity(self.world.CLUSTER_NAME, self.node_id, self.name, self.incarnation)
            Wal.create(disk, LOG_DIRECTORY, identity, limits).close()
        return Wal.open(disk, LOG_DIRECTORY, limits)

    def restart_later(self) -> None:
        delay_us = self.world.knobs.start_us + int(self._random.random() * RESTART_US)
        self.world.after(delay_us, self.start)

    # Ending.

    def kill(self) -> None:
        """The process dies, the machine goes on: what was written is cached, and may not be on the disk yet."""
        process = self.process
        if process is not None:
            self._end_process(says_so=True)
            self._stop_writing(process)
            self.disk.kill()
            self.restart_later()

    def retire(self) -> None:
        """It has heard that it was removed: it stops, and never comes back with this disk."""
        if not self.retired:
            self.world.tell(f"{self.name} was removed: it stops")
            self.retired = True
            self.kill()

    def lose_power(self) -> None:
        """Everything stops between two operations of the disk."""
        process = self.process
        if process is None:
            return
        self._end_process(says_so=False)
        self._stop_writing(process)
        if self._random.random() < 0.5 and not self.disk_is_full:
            process.storage.run_job()
        self._after_power_loss()

    def _stop_writing(self, process: Process) -> None:
        """What the log was being given gets as far as any operation of the disk."""
        self._operations_left = self._random.randrange(POWER_LOSS_OPERATIONS_MAX)
        try:
            process.journal.write_batch()
        except (PowerLoss, DiskFailure):
            pass
        self._operations_left = -1

    def _after_power_loss(self) -> None:
        self._operations_left = -1
        self.disk.crash(self._random)
        if self._random.random() < 0.2:
            self._operations_left = self._random.randrange(2 * POWER_LOSS_OPERATIONS_MAX)  # it will be lost again
        self.restart_later()

    def close_in_order(self) -> None:
        """The end of SIGTERM's way: the log is closed, what is applied is committed."""
        process = self.process
        assert process is not None, "a process shuts down"
        self._end_process(says_so=True)
        process.close_log()
        self.disk.kill()
        self.restart_later()

    def _end_process(self, *, says_so: bool) -> bool:
        """`says_so`: the kernel closes its connections, which the others notice."""
        process = self.process
        if process is None:
            return False
        process.alive = False
        self.process = None
        self.resume()
        self.ticks_late = False
        world = self.world
        process.door.close(says_so=says_so)
        if says_so:
            for other in world.machines.values():
                if other is not self:
                    world.network.post(self.node_id, other.node_id, other.receive, "on_peer_reset", (self.node_id,))
        return True

    # While it runs.

    @property
    def paused(self) -> bool:
        return self._paused_until_us > self.world.now_us

    def pause(self, pause_us: int) -> None:
        """The process is not scheduled (SIGSTOP, a stalled hypervisor); its clock goes on."""
        if self.process is None or self.paused:
            return
        self._paused_until_us = self.world.now_us + pause_us
        self.world.after(pause_us, self._on_pause_over, (self.process,))

    def resume(self) -> None:
        self._paused_until_us = 0
        self.inbox.clear()

    def _on_pause_over(self, process: Process) -> None:
        if self.process is not process or self.paused:
            return
        inbox, self.inbox = self.inbox, []
        for callback, arguments in inbox:
            if process.alive:
                callback(*arguments)
        if process.alive and self.ticks_late:
            self.ticks_late = False
            process.tick()

    def input(self, process: Process, callback: Callable[..., None], *arguments: Any) -> None:
        """Something that this life of the process waits for: its disk, its loop."""
        if not process.alive:
            return
        if self.paused:
            self.inbox.append((callback, arguments))
        else:
            callback(*arguments)

    def receive(self, method: str, arguments: tuple[Any, ...]) -> None:
        """Something from another machine, for whatever process there is by now."""
        process = self.process
        if process is not None:
            self.input(process, getattr(process, method), *arguments)

    # The disk.

    def _fault(self, operation: str, path: str) -> None:
        if self._operations_left >= 0:
            if self._operations_left == 0:
                raise PowerLoss
            self._operations_left -= 1
        if self.failing_syncs and operation == "fdatasync":
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    def fill_disk(self, *, full: bool) -> None:
        self.disk_is_full = full
        used_bytes = 2**40 - self.disk.free_bytes(LOG_DIRECTORY) if self.disk.capacity_bytes == 2**40 else 0
        self.disk.capacity_bytes = used_bytes if full else 2**40

    def rot(self) -> bool:
        """Flip a bit in an old segment, where a start has to notice it; False when there is none."""
        if self._operations_left >= 0:
            return False  # the power is about to be lost, which only an operation of the machine itself may meet
        names = sorted(name for name in self.disk.list(LOG_DIRECTORY) if name.endswith(".wal"))
        if len(names) < 2:
            return False
        path = f"{LOG_DIRECTORY}/{names[0]}"
        used_bytes = len(self.disk.contents(path).rstrip(b"\0"))
        self.disk.flip_bit(path, self._random.randrange(max(1, used_bytes) * 8))
        return True
