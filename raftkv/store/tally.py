"""What the stores of one member have done since it started, one after the other: for figures only, nothing is decided by it."""


class Tally:
    """Counts that only grow. Applied is what the log says, so all members count the same in their time; reads are a member's own."""

    __slots__ = ("deletes", "leases_expired", "leases_granted", "leases_revoked", "puts", "ranges", "txns")

    def __init__(self) -> None:
        self.puts = 0
        self.deletes = 0
        self.txns = 0
        self.ranges = 0  # and reads of single keys; those inside transactions are not counted
        self.leases_granted = 0
        self.leases_revoked = 0  # those that expired, too
        self.leases_expired = 0
