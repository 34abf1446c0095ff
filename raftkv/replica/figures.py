"""What the service of a member has counted, for those who show it."""

from typing import NamedTuple


class ServiceFigures(NamedTuple):
    """`pending_commands` is how it stands now, everything else since the start."""

    pending_commands: int  # writes that were proposed and not yet applied
    failed_commands: int  # writes that were given up after they had been proposed
    read_rounds_slow: int  # confirmations of reads that were asked for anew because nothing was heard of them
    read_rounds_failed: int  # those that nobody could give
    leases_renewed: int
