"""Everything that differs between two seeds before anything happens: sizes, times, limits, settings and how unkind the world is.

Limits are drawn tiny, so that each bound is met within seconds. Times are virtual; `_us` are microseconds.
"""

from dataclasses import dataclass, field, replace
from random import Random

from raftkv.limits import Limits


@dataclass(slots=True, kw_only=True)
class Knobs:
    """One world's constants."""

    members: int = 3
    spares: int = 0  # machines beyond the founders, for changes of membership
    # The core's settings.
    tick_ms: int = 25
    heartbeat_ticks: int = 4
    election_timeout_ticks: int = 40
    pre_vote: bool = True
    check_quorum: bool = True
    fast_failover: bool = True
    lease_reads: bool = False
    limits: Limits = field(default_factory=Limits)
    apply_budget_bytes: int = 64 * 1024
    snapshot_bytes_per_tick: int = 0
    priorities: bool = False  # some members are preferred as leaders
    # The machines.
    turn_us: int = 0  # what arrives while a turn of the loop lasts becomes the next batch
    start_us: int = 20_000
    sync_us: tuple[int, int] = (200, 2_000)
    sector_bytes: int = 512  # what of a write survives a power loss as a whole, or not at all
    commit_us: tuple[int, int] = (1_000, 20_000)
    drift_max: float = 0.0  # of a clock, as a share
    # The network, in one direction.
    latency_us: tuple[int, int] = (100, 1_000)
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0  # share of messages that do not keep their place on a link
    # Clients.
    clients: int = 4
    pipelined: int = 1  # calls that a client has under way at once
    think_us: int = 20_000  # mean pause between calls
    call_timeout_s: float = 5.0
    keys: int = 4
    operations_per_key: int = 60  # then another key takes its place, which keeps the checker quick
    # What goes wrong, and for how long.
    chaos_us: int = 12_000_000
    nemesis_us: int = 600_000  # mean time between two disasters; 0: none
    disasters: tuple[str, ...] = ()
    faulty_minority: bool = False  # after the chaos a minority stays broken for good
    leases: bool = False  # owners of leases come to the clients (leases.py)
    pools: bool = False  # workers that share pools do (pools.py)
    data: bool = False  # watches, transactions, waits and compactions do (data.py)
    users: bool = False  # everybody has to log in (users.py)
    history_events_per_step: int = 512  # of watches that catch up
    watch_leave: float = 0.02  # chance that a client of watches leaves its member for no reason, each time it looks
    compact_us: int = 0  # mean time between two compactions that somebody asks for; 0: nobody does
    fates: tuple[str, ...] = ("dead", "cut off", "full disk", "slow disk")  # how it may be broken

    @property
    def election_timeout_us(self) -> int:
        return self.election_timeout_ticks * self.tick_ms * 1000

    @property
    def quorum(self) -> int:
        return self.members // 2 + 1


def draw_limits(random: Random, *, session_ttl_ms: int) -> Limits:
    """Bounds that hurt within seconds."""
    value_bytes = random.choice((512, 4096))
    request_bytes = value_bytes * 4
    append_bytes = request_bytes * random.choice((2, 8))
    return Limits(
        key_bytes_max=256,
        value_bytes_max=value_bytes,
        request_bytes_max=request_bytes,
        entry_bytes_max=random.choice((64, 1024, 65536)),
        append_message_bytes_max=append_bytes,
        append_messages_in_flight_max=random.choice((1, 2, 64)),
        append_bytes_in_flight_max=append_bytes * random.choice((1, 16)),
        peer_frame_bytes_max=append_bytes * 4,
        pending_writes_max=random.choice((4, 100_000)),
        pending_reads_max=random.choice((4, 100_000)),
        wal_segment_bytes=random.choice((4096, 16384, 131072)),
        log_retained_bytes_max=random.choice((1024, 16384, 1 << 20)),
        log_retained_entries_max=random.choice((5, 50, 10_000)),
        snapshot_chunk_bytes=random.choice((512, 4096, 65536)),
        snapshot_chunks_in_flight_max=random.choice((1, 4)),
        overlay_bytes_max=random.choice((4096, 1 << 20)),
        overlay_records_max=random.choice((20, 10_000)),
        commit_interval_ms=random.choice((50, 300, 1000)),
        commit_bytes=random.choice((1024, 65536)),
        session_window=random.choice((2, 8, 1024)),
        session_answer_bytes_max=random.choice((256, 65536)),
        sessions_max=100,
        digests_kept_max=40,
        session_ttl_ms=session_ttl_ms,
    )


DISASTERS = (
    "kill",
    "power_loss",
    "shutdown",
    "pause",
    "partition",
    "one_way_cut",
    "isolate_leader",
    "slow_link",
    "loss",
    "slow_disk",
    "stalled_disk",
    "failing_sync",
    "full_disk",
    "bit_rot",
    "clock_jump",
    "drift",
    "reset",
    "transfer",
    "client_gone",
)

FATES = ("dead", "cut off", "full disk", "slow disk", "deaf", "mute")


def draw_knobs(random: Random) -> Knobs:
    """A world. Each seed has only some kinds of disasters: many at once hide what a few would show."""
    lease_reads = random.random() < 0.2
    check_quorum = lease_reads or random.random() < 0.85
    heartbeat_ticks = random.choice((1, 2, 4))
    short_sessions = random.random() < 0.1
    count = random.choice((2, 4, 7, len(DISASTERS)))
    disasters = tuple(sorted(random.sample(DISASTERS, count), key=DISASTERS.index))
    if short_sessions:
        # A session that dies while its client still retries has an unknown outcome; a clock that leaps would kill it unseen.
        disasters = tuple(name for name in disasters if name not in ("clock_jump", "drift", "pause"))
    lossy = random.random() < 0.5
    knobs = Knobs(
        members=random.choice((3, 3, 3, 5, 5, 7)),
        tick_ms=random.choice((10, 25, 25)),
        heartbeat_ticks=heartbeat_ticks,
        election_timeout_ticks=heartbeat_ticks * random.choice((5, 10)),
        pre_vote=random.random() < 0.85,
        check_quorum=check_quorum,
        fast_failover=not lease_reads and random.random() < 0.6,
        lease_reads=lease_reads,
        limits=draw_limits(random, session_ttl_ms=8_000 if short_sessions else 120_000),
        apply_budget_bytes=random.choice((64, 65_536)),
        turn_us=random.choice((0, 0, 500, 3_000)),
        sync_us=random.choice(((0, 0), (100, 800), (1_000, 10_000), (500, 40_000))),
        commit_us=random.choice(((500, 5_000), (10_000, 400_000))),
        drift_max=random.choice((0.0, 0.04)) if lease_reads else random.choice((0.0, 0.04, 0.2)),
        latency_us=random.choice(((50, 400), (200, 3_000), (500, 30_000))),
        loss=random.choice((0.01, 0.1)) if lossy else 0.0,
        duplication=random.choice((0.0, 0.02, 0.1)),
        reordering=random.choice((0.0, 0.05, 0.5)),
        clients=random.randint(2, 6),
        pipelined=random.choice((1, 1, 4)),
        think_us=random.choice((5_000, 30_000, 150_000)),
        call_timeout_s=random.choice((1.0, 5.0)) if not short_sessions else 2.0,
        keys=random.randint(1, 6),
        chaos_us=random.choice((4_000_000, 12_000_000, 20_000_000)),
        nemesis_us=random.choice((150_000, 600_000, 1_500_000)),
        disasters=disasters,
        faulty_minority=random.random() < 0.4,
        # A leader that is heard and hears nobody is what check-quorum is for (6.2): without it nobody takes over.
        fates=FATES if check_quorum else FATES[:4],
        sector_bytes=random.choice((64, 512)),
        snapshot_bytes_per_tick=random.choice((0, 0, 2_000, 20_000)),
        priorities=random.random() < 0.3,
    )
    if random.random() < 0.3:
        knobs = with_changes(knobs, random)
    return with_bounds_on_snapshots(knobs, random)


def with_changes(knobs: Knobs, random: Random) -> Knobs:
    """Members come and go. Nothing rots then: what a minority is changes all the time."""
    disasters = tuple(name for name in knobs.disasters if name != "bit_rot")
    return replace(
        knobs, spares=random.randint(1, 4), disasters=(*disasters, *(("membership",) * random.randint(1, 3)))
    )


def with_bounds_on_snapshots(knobs: Knobs, random: Random) -> Knobs:
    """Drawn last: what a seed meant before stays what it means."""
    limits = replace(
        knobs.limits,
        log_held_bytes_max=random.choice((knobs.limits.log_retained_bytes_max, 1 << 29)),
        snapshot_resume_ms_max=random.choice((500, 60_000)),
    )
    return replace(knobs, limits=limits)
