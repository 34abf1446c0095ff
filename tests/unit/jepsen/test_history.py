"""A history survives its file, also that of a run that was killed in the middle."""

from pathlib import Path

import pytest

from raftkv_jepsen.history import FAIL, INFO, NEVER_NS, OK, HistoryWriter, Operation, read_operations


def write_some(path: Path) -> list[Operation]:
    writer = HistoryWriter(path)
    done = Operation(1, "write", "a", [1, None], invoked_ns=5)
    refused = Operation(2, "write", "b", 2, invoked_ns=6)
    timed_out = Operation(3, "read", "b", invoked_ns=7)
    unfinished = Operation(4, "write", "b", 3, invoked_ns=8, node="n2")
    for operation in (done, refused, timed_out, unfinished):
        writer.invoke(operation)
    fault = writer.fault_began("kill", "n1", 9)
    done.outcome, done.result = OK, True
    writer.complete(done, 10)
    refused.outcome, refused.error = FAIL, "no_quorum"
    writer.complete(refused, 11)
    timed_out.error = "deadline_exceeded"
    writer.complete(timed_out, 12)
    writer.fault_ended(fault, 13)
    writer.close()
    return writer.operations


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    written = write_some(tmp_path / "history.jsonl")
    with (tmp_path / "history.jsonl").open() as lines:
        assert read_operations(lines) == written
    assert [operation.outcome for operation in written] == [OK, FAIL, INFO, INFO]
    assert [operation.completed_ns for operation in written] == [10, 11, NEVER_NS, NEVER_NS]


def test_an_outcome_without_its_request_is_an_error() -> None:
    with pytest.raises(ValueError, match="line 1"):
        read_operations(['{"id":7,"type":"ok","time_ns":1,"value":null}'])
