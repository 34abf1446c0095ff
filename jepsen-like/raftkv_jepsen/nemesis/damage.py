"""Bytes that change on the disk of a stopped member. It has to notice, or to be unharmed; what it refuses is replaced by a fresh one.

The member is stopped in order before: the last frame of a log that a crash ended cannot be told from a torn one, so damage to it would be a lie
that nobody can find. Of LMDB only what it checks itself is damaged (its meta pages, its length): single pages carry no checksum.
"""

import os
from pathlib import Path
from typing import Callable, Final

from raftkv_jepsen.machines.node import Node
from raftkv_jepsen.machines.waiting import wait_until
from raftkv_jepsen.nemesis.arena import Arena, Injection, Kind
from raftkv_jepsen.nemesis.membership import replace

LINES: Final = r"damaged|corrupt|unfinished write|ends before the store|does not fit|holds a store, but"
PAGE_BYTES: Final = 4096
VERDICT_S: Final = 60.0


def used_bytes(path: Path) -> int:
    """Up to the last byte of a preallocated file that is not zero."""
    return len(path.read_bytes().rstrip(b"\0"))


def segments(node: Node) -> list[Path]:
    """The log's files that hold something, oldest first."""
    return sorted(path for path in (node.data_directory / "wal").glob("*.wal") if used_bytes(path))


def flip_log(arena: Arena, node: Node) -> str:
    """One bit."""
    path = arena.draw.choice(segments(node))
    offset = arena.draw.randrange(used_bytes(path))
    bit = arena.draw.randrange(8)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
        os.fsync(file.fileno())
    return f"bit {bit} of byte {offset} in {path.name}"


def zero_log(arena: Arena, node: Node) -> str:
    """A sector that reads as zeros, in the middle: not the end of the log, although it looks like it (an etcd 3.5.1 fault)."""
    path = segments(node)[-1]
    sectors = used_bytes(path) // 512
    sector = arena.draw.randrange(max(1, sectors - 1))
    with path.open("r+b") as file:
        file.seek(sector * 512)
        file.write(bytes(512))
        os.fsync(file.fileno())
    return f"sector {sector} of {sectors} in {path.name} is zeros"


def garbage_behind_log(arena: Arena, node: Node) -> str:
    """Behind the last record, as a file system leaves it that had promised room and not written it."""
    path = segments(node)[-1]
    begin, length = used_bytes(path), arena.draw.randrange(1, 2 * PAGE_BYTES)
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(arena.draw.randbytes(length))
        os.fsync(file.fileno())
    return f"{length} bytes of garbage behind byte {begin} of {path.name}"


def cut_store(arena: Arena, node: Node) -> str:
    """LMDB's file ends too early."""
    path = node.data_directory / "store" / "store.lmdb"
    pages = path.stat().st_size // PAGE_BYTES
    left = arena.draw.randrange(0, 2)
    os.truncate(path, left * PAGE_BYTES)
    return f"{left} of {pages} pages left of {path.name}"


def wipe_meta(arena: Arena, node: Node) -> str:
    """Both meta pages of LMDB are garbage."""
    path = node.data_directory / "store" / "store.lmdb"
    with path.open("r+b") as file:
        file.write(arena.draw.randbytes(2 * PAGE_BYTES))
        os.fsync(file.fileno())
    return f"both meta pages of {path.name} are garbage"


def _damaging(damage: Callable[[Arena, Node], str]) -> Callable[[Arena], Injection]:
    def inject(arena: Arena) -> Injection:
        if arena.down:
            return Injection("nobody, others are down", lambda: None)
        node = arena.take_any()
        arena.down.add(node.name)
        node.terminate()
        detail = f"{node.name}: {damage(arena, node)}"
        node.start()
        wait_until(lambda: not node.running or node.http_get("/livez")[0] == 200, "a verdict", deadline_s=VERDICT_S)
        if node.running:
            return Injection(f"{detail}: unharmed", lambda: arena.start(node))
        words = " ".join(node.daemon.log_text().strip().splitlines()[-1:])
        if node.daemon.exit_code != 1 or "Traceback" in node.daemon.log_text():
            arena.crashes.append(f"{detail}: no word about it, exit code {node.daemon.exit_code}: {words}")
        return Injection(f"{detail}: refused", lambda: replace(arena, node))

    inject.__doc__ = damage.__doc__
    return inject


KINDS: Final = (
    Kind("damage-log-bit", "damage", _damaging(flip_log), forgives=LINES, own=True, alone=True),
    Kind("damage-log-sector", "damage", _damaging(zero_log), forgives=LINES, own=True, alone=True),
    Kind("damage-log-tail", "damage", _damaging(garbage_behind_log), forgives=LINES, own=True, alone=True),
    Kind("damage-store-cut", "damage", _damaging(cut_store), forgives=LINES, own=True, alone=True),
    Kind("damage-store-meta", "damage", _damaging(wipe_meta), forgives=LINES, own=True, alone=True),
)
