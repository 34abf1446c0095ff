"""What was asked, when, and what came of it: operations, and the JSON lines in which a run keeps them.

An operation is `ok` (done, with this result), `fail` (surely not done) or `info` (done once, later, or never: it stays open for ever).
The file holds events as they happen, an `invoke` and later an outcome per operation, so that a run that is killed leaves an honest
history: what has no outcome line was open. Faults stand in the same file as events of the process "nemesis".
"""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Iterable, Mapping

OK: Final = "ok"
FAIL: Final = "fail"
INFO: Final = "info"
INVOKE: Final = "invoke"
NEMESIS: Final = "nemesis"

NEVER_NS: Final = 2**63 - 1
"""When an open operation completes."""


@dataclass(slots=True)
class Operation:
    """One operation of one client. Times are nanoseconds of one clock, the same for the whole history."""

    process: int
    function: str
    key: str
    argument: Any = None
    outcome: str = INFO
    result: Any = None
    invoked_ns: int = 0
    completed_ns: int = NEVER_NS
    error: str = ""
    node: str = ""
    """The member that was asked, where the client pins one."""

    def __str__(self) -> str:
        asked = f"{self.function} {self.key} {'' if self.argument is None else self.argument}".rstrip()
        came = {
            OK: f"-> {self.result}",
            FAIL: f"refused ({self.error})",
            INFO: f"unknown ({self.error or 'no answer'})",
        }
        ended = "open" if self.completed_ns == NEVER_NS else f"{self.completed_ns / 1e9:.4f}"
        return f"[{self.invoked_ns / 1e9:.4f} {ended}] p{self.process} {asked} {came[self.outcome]}"


@dataclass(slots=True)
class Fault:
    """One fault, from its injection to its healing."""

    name: str
    detail: str
    began_ns: int
    ended_ns: int = NEVER_NS


class HistoryWriter:
    """Appends events to a JSON lines file. One per run: operations from one thread, faults perhaps from another."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", buffering=1 << 16)
        self._lock = threading.Lock()
        self._ids: dict[int, int] = {}
        self._last_id = 0
        self.operations: list[Operation] = []
        self.faults: list[Fault] = []

    def invoke(self, operation: Operation) -> None:
        """Before the request leaves."""
        self._last_id += 1
        self._ids[id(operation)] = self._last_id
        self.operations.append(operation)
        self._write(
            {
                "id": self._last_id,
                "type": INVOKE,
                "time_ns": operation.invoked_ns,
                "process": operation.process,
                "f": operation.function,
                "key": operation.key,
                "value": operation.argument,
                "node": operation.node,
            }
        )

    def complete(self, operation: Operation, at_ns: int) -> None:
        """After the answer came or was given up; an open operation has a time here, but stays open for the checkers."""
        event = {"id": self._ids.pop(id(operation)), "type": operation.outcome, "time_ns": at_ns}
        if operation.outcome == OK:
            event["value"] = operation.result
        else:
            event["error"] = operation.error
        operation.completed_ns = NEVER_NS if operation.outcome == INFO else at_ns
        self._write(event)

    def fault_began(self, name: str, detail: str, at_ns: int) -> Fault:
        """A fault was injected."""
        fault = Fault(name, detail, at_ns)
        self.faults.append(fault)
        self._write({"type": INFO, "time_ns": at_ns, "process": NEMESIS, "f": name, "value": detail})
        return fault

    def fault_ended(self, fault: Fault, at_ns: int) -> None:
        """It was healed."""
        fault.ended_ns = at_ns
        self._write(
            {"type": INFO, "time_ns": at_ns, "process": NEMESIS, "f": "heal " + fault.name, "value": fault.detail}
        )

    def _write(self, event: Mapping[str, Any]) -> None:
        line = json.dumps(event, separators=(",", ":")) + "\n"
        with self._lock:
            if not self._file.closed:  # a run that was broken off: what comes now was open
                self._file.write(line)

    def close(self) -> None:
        """Flushes; what is still open is left without an outcome, which is what open means."""
        with self._lock:
            self._file.close()


def read_faults(lines: Iterable[str]) -> list[Fault]:
    """The faults of a history file, in the order of their injection."""
    faults: list[Fault] = []
    for event in map(json.loads, lines):
        if event.get("process") != NEMESIS:
            continue
        name, detail = event["f"], event["value"]
        if not name.startswith("heal "):
            faults.append(Fault(name, detail, event["time_ns"]))
            continue
        healed = next(f for f in faults if "heal " + f.name == name and f.detail == detail and f.ended_ns == NEVER_NS)
        healed.ended_ns = event["time_ns"]
    return faults


def read_operations(lines: Iterable[str]) -> list[Operation]:
    """The operations of a history file; events of the nemesis are passed over. Raises ValueError for a broken line."""
    operations: dict[int, Operation] = {}
    for number, line in enumerate(lines, 1):
        event = json.loads(line)
        if event["process" if event["type"] == INVOKE else "type"] == NEMESIS or event.get("process") == NEMESIS:
            continue
        if event["type"] == INVOKE:
            operations[event["id"]] = Operation(
                process=event["process"],
                function=event["f"],
                key=event["key"],
                argument=event["value"],
                invoked_ns=event["time_ns"],
                node=event.get("node", ""),
            )
            continue
        operation = operations.get(event["id"])
        if operation is None or event["type"] not in (OK, FAIL, INFO):
            raise ValueError(f"line {number}: {line.strip()}")
        operation.outcome = event["type"]
        operation.result = event.get("value")
        operation.error = event.get("error", "")
        if operation.outcome != INFO:
            operation.completed_ns = event["time_ns"]
    return list(operations.values())
