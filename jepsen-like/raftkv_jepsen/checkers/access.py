"""Users and roles: whether an access was let in has to agree with them at one moment between its call and its answer.

A subject is one user, one role and one key. Everything that happens to it is a step of one sequential object, so the search for a linear order proves all of
it at once, with open changes left open: after an acknowledged revocation, deletion or change of the password no access that begins later is let in, at no
member and through no door; none is before the grant; and who may is not turned away. Beside the search stands a judge that needs none
and names what was let in after what.
"""

from dataclasses import replace
from typing import Any, Final, Iterable, NamedTuple, Sequence

from raftkv_jepsen.checkers.linearizability import by_key, check_linearizable
from raftkv_jepsen.checkers.models import Model
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, OK, Operation

USER_ADD, USER_DELETE, PASSWORD = "user-add", "user-delete", "change-password"
GRANT, REVOKE, PERMIT, FORBID = "grant-role", "revoke-role", "permit", "forbid"
ROLE_ADD, ROLE_DELETE = "role-add", "role-delete"
ACCESS: Final = "access"
"""argument [door, what, password, value if one is written], result ALLOWED or DENIED."""
OVERHEARD: Final = "overheard"
"""A watcher was told of a write: argument [door, "read", password, value]."""
ROOT_WRITE: Final = "root-write"
"""By somebody who may do everything; argument as that of a write."""
ASIDE: Final = frozenset({OVERHEARD, ROOT_WRITE})
ALLOWED, DENIED = "allowed", "denied"
DONE, NO = "done", "no"
COVERED: Final = {"read": ("read", "readwrite"), "write": ("write", "readwrite")}


class Subject(NamedTuple):
    """One user and one role. `password` None: there is no such user; `permitted` None: no such role, "": it permits nothing."""

    password: str | None = None
    has_role: bool = False
    permitted: str | None = None

    def lets_in(self, what: str, password: str) -> bool:
        """Whether who shows this password may do it."""
        return self.password == password and self.has_role and self.permitted in COVERED[what]


def _changed(subject: Subject, function: str, argument: Any) -> Subject | None:
    """After the change; None when things are not so that it can be made."""
    password, has_role, permitted = subject
    if function == USER_ADD:
        return None if password is not None else Subject(argument, False, permitted)
    if function == USER_DELETE:
        return None if password is None else Subject(None, False, permitted)
    if function == PASSWORD:
        return None if password is None else Subject(argument, has_role, permitted)
    if function == GRANT:
        return None if password is None or permitted is None else Subject(password, True, permitted)
    if function == REVOKE:
        return Subject(password, False, permitted) if password is not None and has_role else None
    if function == ROLE_ADD:
        return None if permitted is not None else Subject(password, has_role, "")
    if function == ROLE_DELETE:
        return None if permitted is None else Subject(password, False, None)
    if function == PERMIT:
        return None if permitted is None else Subject(password, has_role, argument)
    assert function == FORBID, function
    return Subject(password, has_role, "") if permitted else None


def _step(subject: Subject, operation: Operation) -> tuple[bool, Subject]:
    done = operation.outcome == OK
    if operation.function == ACCESS:
        what, password = operation.argument[1:3]
        return not done or subject.lets_in(what, password) == (operation.result == ALLOWED), subject
    after = _changed(subject, operation.function, operation.argument)
    fits = not done or (operation.result == DONE) == (after is not None)
    return fits, subject if after is None else after


SUBJECT: Final = Model("users and roles", Subject(), _step)


def check_access(operations: Iterable[Operation]) -> list[Verdict]:
    """Each key is a subject; a password is given once at most."""
    operations = list(operations)
    steps = [operation for operation in operations if operation.function not in ASIDE]
    return [check_linearizable(steps, SUBJECT), check_shut_doors(operations)]


def check_shut_doors(operations: Iterable[Operation]) -> Verdict:
    """An access is let in by a user of that password, by a role it has, by a permission the role has: each was given, and not surely taken back."""
    verdict = Verdict("nobody is let in after it was taken back")
    allowed_count = denied_count = heard_count = 0
    for part in by_key(operations).values():
        accesses = [o for o in part if o.function == ACCESS and o.outcome == OK]
        heard = list(_heard(part))
        heard_count += len(heard)
        changes = [o for o in part if o.function not in (ACCESS, *ASIDE) and o.outcome != FAIL and o.result != NO]
        denied_count += sum(o.result == DENIED for o in accesses)
        allowed = [o for o in accesses if o.result == ALLOWED]
        allowed_count += len(allowed)
        for access in (*allowed, *heard):
            what, password = access.argument[1:3]
            for needed, gives, takes in (
                ("a user with that password", _password(password), (USER_DELETE, PASSWORD)),
                ("its role", {(GRANT, None)}, (REVOKE, USER_DELETE, ROLE_DELETE)),
                ("a permission", {(PERMIT, kind) for kind in COVERED[what]}, (FORBID, ROLE_DELETE, PERMIT)),
            ):
                last = _last_taken(access, changes, gives, takes)
                if last is not None:
                    verdict.accuse(f"{access.key}: let in without {needed}: {access}", [*last, access])
    verdict.detail = f"{allowed_count} accesses let in, {denied_count} turned away, {heard_count} writes overheard"
    return verdict


def _heard(part: Sequence[Operation]) -> Iterable[Operation]:
    """What a watcher was told, as an access that lasted from the beginning of that write on: the watcher was judged within that time."""
    begun = {o.argument[3]: o.invoked_ns for o in part if o.function in (ACCESS, ROOT_WRITE) and len(o.argument) > 3}
    for heard in (o for o in part if o.function == OVERHEARD):
        yield replace(heard, invoked_ns=begun.get(heard.argument[3], heard.invoked_ns))


def _password(password: str) -> set[tuple[str, Any]]:
    return {(USER_ADD, password), (PASSWORD, password)}


def _gives(change: Operation, gives: set[tuple[str, Any]]) -> bool:
    return (change.function, None) in gives or (change.function, change.argument) in gives


def _last_taken(
    access: Operation, changes: Sequence[Operation], gives: set[tuple[str, Any]], takes: Sequence[str]
) -> list[Operation] | None:
    """The proof that it was not given at any moment of the access: what was acknowledged to take it, with no gift at the same time or after. None: no proof."""
    gifts = [o for o in changes if _gives(o, gives) and o.invoked_ns <= access.completed_ns]
    if not gifts:
        return []
    taken = [
        o
        for o in changes
        if o.function in takes and not _gives(o, gives) and o.outcome == OK and o.completed_ns < access.invoked_ns
    ]
    for take in sorted(taken, key=lambda o: o.invoked_ns, reverse=True):
        if all(gift.completed_ns < take.invoked_ns for gift in gifts):
            return [take]
    return None
