"""Elections: terms follow each other by their tokens, nobody speaks for a term that is over, and who looks on hears the truth, in order.

The token of an office is the revision at which its holder came, so terms are in the order of tokens. As soon as anybody knows of a term, nothing that
begins later belongs to an earlier one. That two do not rely on one office at the same time is the judge of locks' business (HOLD).
"""

from typing import Final, Iterable, NamedTuple, Sequence

from raftkv_jepsen.checkers.linearizability import by_key
from raftkv_jepsen.checkers.locks import HOLD
from raftkv_jepsen.checkers.verdict import Verdict
from raftkv_jepsen.history import FAIL, OK, Operation

CAMPAIGN, PROCLAIM, LEADER = "campaign", "proclaim", "leader"
OBSERVED: Final = "observed"
"""argument: the session of the observer; result [token, value, revision]."""


class _Sign(NamedTuple):
    """This operation shows that the term of this token had begun."""

    token: int
    operation: Operation


def _sign(operation: Operation) -> _Sign | None:
    if operation.outcome != OK:
        return None
    if operation.function == CAMPAIGN:
        return _Sign(operation.result, operation)
    if operation.function == PROCLAIM:
        return _Sign(operation.argument[0], operation)
    if operation.function == HOLD:
        return _Sign(operation.argument, operation)
    if operation.function in (LEADER, OBSERVED) and operation.result is not None:
        return _Sign(operation.result[0], operation)
    return None


def check_elections(operations: Iterable[Operation]) -> Verdict:
    """Each key is an office. Every value is campaigned with, or proclaimed, once at most."""
    verdict = Verdict("terms and observers")
    terms = words = 0
    for key, part in by_key(operations).items():
        signs = [sign for sign in map(_sign, part) if sign is not None]
        terms += len({sign.token for sign in signs})
        words += sum(operation.function == OBSERVED for operation in part)
        _check_tokens(verdict, key, part)
        _check_order(verdict, key, signs)
        _check_observers(verdict, key, part)
        _check_words(verdict, key, part)
    verdict.detail = f"{terms} terms, {words} words heard"
    return verdict


def _check_tokens(verdict: Verdict, key: str, part: Sequence[Operation]) -> None:
    elected: dict[int, Operation] = {}
    for campaign in (o for o in part if o.function == CAMPAIGN and o.outcome == OK):
        other = elected.setdefault(campaign.result, campaign)
        if other is not campaign:
            verdict.accuse(f"{key}: token {campaign.result} was given twice", [other, campaign])


def _check_order(verdict: Verdict, key: str, signs: Sequence[_Sign]) -> None:
    """What an observer heard may be old news, so it proves that a term had begun and not that it goes on."""
    known = sorted(signs, key=lambda sign: sign.operation.completed_ns)
    claims = (sign for sign in signs if sign.operation.function != OBSERVED)
    position, newest = 0, None
    for claim in sorted(claims, key=lambda sign: sign.operation.invoked_ns):
        while position < len(known) and known[position].operation.completed_ns < claim.operation.invoked_ns:
            if newest is None or known[position].token > newest.token:
                newest = known[position]
            position += 1
        if newest is not None and claim.token < newest.token:
            verdict.accuse(
                f"{key}: {claim.operation} is of term {claim.token}, when term {newest.token} was known to have begun",
                [newest.operation, claim.operation],
            )


def _check_observers(verdict: Verdict, key: str, part: Sequence[Operation]) -> None:
    last: dict[int, Operation] = {}
    for heard in (o for o in part if o.function == OBSERVED):
        before = last.get(heard.process)
        last[heard.process] = heard
        if before is None:
            continue
        # A term's first word was said when its holder came, which is mostly before the last word of the term before.
        told, said = (before.result[0], before.result[2]), (heard.result[0], heard.result[2])
        if said < told:
            verdict.accuse(f"{key}: p{heard.process} heard {heard.result} after {before.result}", [before, heard])
        elif said == told and before.argument == heard.argument:
            verdict.accuse(f"{key}: p{heard.process} heard {heard.result} twice", [before, heard])


def _check_words(verdict: Verdict, key: str, part: Sequence[Operation]) -> None:
    """Whoever is heard has said so, in that term, and at one revision for all who hear it."""
    authors: dict[str, Operation] = {}
    for said in part:
        if said.function == CAMPAIGN:
            authors[said.argument] = said
        elif said.function == PROCLAIM:
            authors[said.argument[1]] = said
    agreed: dict[int, Operation] = {}
    for heard in part:
        if heard.function not in (OBSERVED, LEADER) or heard.outcome != OK or heard.result is None:
            continue
        token, value, revision = heard.result
        author = authors.get(value)
        if author is None:
            verdict.accuse(f"{key}: {value!r} was heard, and nobody has said so: {heard}", [heard])
            continue
        if author.function == PROCLAIM and author.outcome == FAIL:
            verdict.accuse(f"{key}: what was refused was heard: {author}", [author, heard])
        term = author.argument[0] if author.function == PROCLAIM else author.result
        # A candidate whose session ended while it waited comes anew: it may have led for a moment, and not have known.
        again = author.function == CAMPAIGN and author.outcome == OK and token < term
        if author.outcome == OK and term != token and not again:
            verdict.accuse(f"{key}: {value!r} is of term {term}, and was heard of term {token}", [author, heard])
        other = agreed.setdefault(revision, heard)
        if other.result != heard.result:
            verdict.accuse(f"{key}: revision {revision} is {other.result}, and {heard.result}", [other, heard])
