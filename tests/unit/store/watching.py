"""Sinks of the watch tests: they note what they were handed, and check the rules that hold for every watch."""

from typing import Any

from raftkv.errors import RaftKVError
from raftkv.store.watcher import Batch


class RecordingSink:
    """Takes events while it may; `blink`: stops taking after so many batches."""

    def __init__(self) -> None:
        self.open = True
        self.batches_left = 1 << 30
        self.events: dict[int, list[list[Any]]] = {}
        self.batches: dict[int, list[Batch]] = {}
        self.progress: list[tuple[int, int]] = []
        self.canceled: dict[int, RaftKVError] = {}
        self.promised: dict[int, int] = {}

    @property
    def takes_events(self) -> bool:
        return self.open and self.batches_left > 0

    def on_events(self, tag: int, batch: Batch) -> None:
        assert tag not in self.canceled, "nothing follows the end"
        self.batches_left -= 1
        items = batch.items()
        for _, kv, _ in items:
            assert kv[2] <= batch.revision
        promised = self.promised.get(tag, 0)
        if promised:
            assert not items or items[0][1][2] == promised, "the rest of a revision follows before the next one"
        self.promised[tag] = batch.revision if batch.more else 0
        self.events.setdefault(tag, []).extend(items)
        self.batches.setdefault(tag, []).append(batch)

    def on_progress(self, tag: int, revision: int) -> None:
        assert not self.promised.get(tag), "no revision is half told"
        self.progress.append((tag, revision))

    def on_canceled(self, tag: int, error: RaftKVError) -> None:
        self.canceled[tag] = error

    def keys(self, tag: int) -> list[bytes]:
        return [kv[0] for _, kv, _ in self.events.get(tag, [])]

    def revisions(self, tag: int) -> list[int]:
        return [kv[2] for _, kv, _ in self.events.get(tag, [])]
