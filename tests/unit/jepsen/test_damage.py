"""Damage that is really done: one bit, one sector in the middle, a shorter file; and never anything behind the used part of a segment."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raftkv_jepsen.nemesis import damage
from raftkv_jepsen.nemesis.arena import Arena

USED = bytes(range(1, 251)) * 20
ALLOCATED_BYTES = 64 * 1024


@pytest.fixture
def node(tmp_path: Path) -> Any:
    """Two segments, of which the first holds something, and a store of ten pages."""
    (tmp_path / "wal").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "wal" / "1.wal").write_bytes(USED.ljust(ALLOCATED_BYTES, b"\0"))
    (tmp_path / "wal" / "2.wal").write_bytes(bytes(ALLOCATED_BYTES))
    (tmp_path / "store" / "store.lmdb").write_bytes(b"p" * 10 * damage.PAGE_BYTES)
    return SimpleNamespace(data_directory=tmp_path)


def arena_of(seed: int) -> Arena:
    nobody: Any = SimpleNamespace(nodes=[])
    return Arena(nobody, nobody, random.Random(seed), lambda: 0, lambda words: None, Path())


@pytest.mark.parametrize("seed", range(20))
def test_one_bit_of_what_is_used_flips(node: Any, seed: int) -> None:
    damage.flip_log(arena_of(seed), node)
    after = (node.data_directory / "wal" / "1.wal").read_bytes()
    changed = [position for position in range(len(USED)) if after[position] != USED[position]]
    assert len(changed) == 1
    assert (after[changed[0]] ^ USED[changed[0]]).bit_count() == 1
    assert after[len(USED) :] == bytes(ALLOCATED_BYTES - len(USED))


@pytest.mark.parametrize("seed", range(20))
def test_a_sector_becomes_zeros_and_something_stands_behind_it(node: Any, seed: int) -> None:
    damage.zero_log(arena_of(seed), node)
    after = (node.data_directory / "wal" / "1.wal").read_bytes()[: len(USED)]
    start = next(position for position in range(len(USED)) if after[position] != USED[position])
    assert start % 512 == 0
    assert after[start : start + 512] == bytes(512)
    assert after[start + 512 :] == USED[start + 512 :] != b""


def test_the_store_is_cut_or_loses_its_meta_pages(node: Any) -> None:
    path = node.data_directory / "store" / "store.lmdb"
    damage.wipe_meta(arena_of(1), node)
    data = path.read_bytes()
    assert len(data) == 10 * damage.PAGE_BYTES
    assert data[: 2 * damage.PAGE_BYTES] != b"p" * 2 * damage.PAGE_BYTES
    assert data[2 * damage.PAGE_BYTES :] == b"p" * 8 * damage.PAGE_BYTES
    damage.cut_store(arena_of(1), node)
    assert path.stat().st_size in (0, damage.PAGE_BYTES)
