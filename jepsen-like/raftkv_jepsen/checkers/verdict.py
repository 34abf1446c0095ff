"""What a checker says: valid, INVALID with the evidence, or unknown when it could not decide within its bounds."""

from dataclasses import dataclass, field
from typing import Final, Iterable, Sequence

from raftkv_jepsen.history import Operation

VALID: Final = "valid"
INVALID: Final = "INVALID"
UNKNOWN: Final = "unknown"

_GRAVITY: Final = {VALID: 0, UNKNOWN: 1, INVALID: 2}


@dataclass(slots=True)
class Verdict:
    """One checker's word. `faults` are sentences for people; `evidence` are the operations around the first of them."""

    checker: str
    word: str = VALID
    faults: list[str] = field(default_factory=list)
    evidence: list[Operation] = field(default_factory=list)
    detail: str = ""
    """What was checked, in figures."""

    def accuse(self, fault: str, evidence: Sequence[Operation] = ()) -> None:
        """A proof that a promise was broken."""
        self.word = INVALID
        self.faults.append(fault)
        if not self.evidence:
            self.evidence = list(evidence)

    def doubt(self, reason: str) -> None:
        """The checker cannot decide."""
        if self.word == VALID:
            self.word = UNKNOWN
        self.faults.append(reason)


def gravest(verdicts: Iterable[Verdict]) -> str:
    """One word for all."""
    return max((verdict.word for verdict in verdicts), key=_GRAVITY.__getitem__, default=VALID)
