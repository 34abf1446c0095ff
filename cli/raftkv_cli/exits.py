"""Exit codes, and which error becomes which. Scripts rely on them: DESIGN section 5 fixes the numbers.

The honest outcome decides first: a write that may have happened is 5, whatever its error was.
"""

from raftkv.errors import RaftKVError

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_DONE = 4
UNKNOWN = 5
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

NOT_DONE_CODES = frozenset(
    {"no_quorum", "unreachable", "not_leader", "shutting_down", "deadline_exceeded", "not_acquired"}
)
"""Nobody was there who could have done it; with may_have_happened=False it surely was not done."""


NOT_FOUND_CODES = frozenset(
    {"key_not_found", "lease_not_found", "job_not_found", "pool_not_found", "pool_request_not_found"}
)


def exit_code_of(error: RaftKVError, *, writes: bool) -> int:
    """The exit code for an error of a verb that writes or only reads."""
    if writes and error.may_have_happened:
        return UNKNOWN
    if error.code in NOT_FOUND_CODES:
        return NOT_FOUND
    if error.code == "config":
        return USAGE
    return NOT_DONE if error.code in NOT_DONE_CODES else FAILED
