"""Every bound of the system, on one page.

A queue, a batch or a retry without a bound is a bug that waits for a bad day. Each bound here names its policy: towards
a slow peer raftkv drops (Raft tolerates loss), towards a client it refuses with a clear error. All are injectable: the
simulator runs tiny ones so that each is met within seconds.
"""

from dataclasses import dataclass, fields

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one member. Names end in their unit; `_max` is the last value that is still accepted."""

    # What a client may ask. Over the bound: refused with `key_too_large`, `value_too_large`, `request_too_large`, `too_many_operations`.
    key_bytes_max: int = 16 * KIB
    value_bytes_max: int = 1 * MIB
    request_bytes_max: int = 1536 * KIB
    txn_operations_max: int = 128
    range_reply_bytes_max: int = 4 * MIB  # a range is cut here and `more` set; the client library pages on

    # One connection of a client. Over the bound: its socket is not read until answers have gone out.
    connection_in_flight_requests_max: int = 8192
    connection_in_flight_bytes_max: int = 16 * MIB
    connection_write_buffer_bytes_max: int = 16 * MIB
    client_connections_max: int = 10_000

    # One HTTP/2 connection. Over the bound: a new stream is refused (REFUSED_STREAM), a message that is not whole with RESOURCE_EXHAUSTED.
    http2_streams_max: int = 16_384
    http2_partial_bytes_max: int = 64 * MIB
    http2_partial_bytes_total_max: int = 256 * MIB  # of all connections
    gzip_bytes_per_second_max: int = 32 * MIB  # that come out of compressed messages, of all connections
    http2_streams_total_max: int = 262_144  # of all connections; over it, each gets a share

    # The whole member. Over the bound: new writes are refused with `overloaded`.
    pending_writes_bytes_max: int = 64 * MIB
    pending_writes_max: int = 100_000
    pending_reads_max: int = 100_000

    # Entries and their way to the followers. Over the bound: wait for acknowledgements.
    entry_bytes_max: int = 1 * MIB
    append_message_bytes_max: int = 2 * MIB
    append_messages_in_flight_max: int = 64
    append_bytes_in_flight_max: int = 16 * MIB
    peer_frame_bytes_max: int = 8 * MIB
    transfer_lag_entries_max: int = 1_000  # a member further behind is not handed leadership: writes would wait for it
    promotion_lag_entries_max: int = 1_000  # a learner further behind gets no vote: commitment would wait for it
    members_max: int = 64  # learners included; over it: refused with `membership_refused`
    peer_send_queue_bytes_max: int = 64 * MIB  # over it: messages to that peer are dropped

    # Log and snapshots.
    wal_segment_bytes: int = 64 * MIB
    log_retained_bytes_max: int = 64 * MIB  # kept behind the durable applied index for slow followers
    log_retained_entries_max: int = 100_000
    digests_kept_max: int = (
        4_096  # of the store, one per applied entry; what is older is not compared with other members
    )
    log_held_bytes_max: int = 512 * MIB  # kept while a copy is made or sent; over it, it ends, or is made anew
    snapshot_chunk_bytes: int = 512 * KIB
    snapshot_chunks_in_flight_max: int = 4
    snapshot_resume_ms_max: int = 60_000  # a transfer whose follower fell silent can go on for so long

    # Store. Over `overlay_bytes_max` the member takes no more writes until the commit caught up.
    overlay_bytes_max: int = 64 * MIB
    overlay_records_max: int = 200_000
    commit_interval_ms: int = 1_000
    commit_bytes: int = 16 * MIB
    map_bytes: int = 64 * GIB
    quota_bytes: int = 8 * GIB

    # History. Older than this, or more revisions than this: the leader has it compacted.
    history_ms_max: int = 3_600_000
    history_revisions_max: int = 1_000_000

    # Watches and waits. A watch that is further behind than its queue reads history; over a count: refused with `overloaded`.
    watchers_max: int = 100_000
    watch_queue_events_max: int = 4_096
    watch_queue_bytes_max: int = 1 * MIB
    watch_fragment_bytes: int = 512 * KIB
    watch_buffer_bytes_max: int = 1 * MIB
    watch_progress_interval_ms: int = 5_000
    etcd_watch_progress_interval_ms: int = 600_000
    waits_max: int = 100_000
    wait_keys_max: int = 1_024

    # Sessions. Over the count of sessions: new ones are refused with `too_many_sessions`.
    session_window: int = 1024
    session_answer_bytes_max: int = 1 * MIB
    sessions_max: int = 100_000
    session_ttl_ms: int = 600_000

    # Leases. Over the counts: refused with `too_many_leases`, `too_many_keys`; a shorter TTL is raised; more keys wait for the next command.
    leases_max: int = 100_000
    lease_keys_max: int = 100_000
    lease_ttl_ms_min: int = 2_000
    lease_expiry_keys_max: int = 2_000
    keep_alive_leases_max: int = 4_096

    # Pools. Over the counts: refused. A decision looks at all requests, in the loop: these many take up to nine milliseconds.
    pools_max: int = 1_000
    pool_requests_max: int = 1_500

    # Users and logins. Over the counts: refused with `auth_full`; logins that wait: `overloaded`; tokens: the one unused for longest goes.
    users_max: int = 10_000
    roles_max: int = 10_000
    role_permissions_max: int = 1_024
    logins_pending_max: int = 256
    tokens_max: int = 100_000
    token_ttl_ms: int = 300_000
    login_refusal_ms: int = 1_000  # a login that is refused is answered no sooner

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            assert value > 0, f"limit {field.name} must be positive, is {value}"
        assert self.value_bytes_max <= self.request_bytes_max, "a value fits into a request"
        assert self.request_bytes_max < self.append_message_bytes_max, "one request fits into one append message"
        assert self.append_message_bytes_max < self.peer_frame_bytes_max, "an append message fits into a frame"
        assert self.log_retained_bytes_max <= self.log_held_bytes_max, "what is always retained may be held"


DEFAULT_LIMITS = Limits()
