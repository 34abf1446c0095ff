"""The snippets of docs/recipes.md do what they say: each is run on three nodes, as it stands there."""

import ast
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import raftkv

from .harness.cluster import Cluster

pytestmark = pytest.mark.integration

ENDPOINTS = "n1:2379,n2:2379,n3:2379"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"


def snippets() -> list[Any]:
    """(heading, code) of each block but the one that makes the client."""
    found = []
    heading = ""
    for part in re.split(r"^(## [^\n]*|```python\n.*?^```)$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL):
        if part.startswith("## "):
            heading = part[3:]
        elif part.startswith("```python") and heading:
            found.append(pytest.param(part[len("```python\n") : -len("```")], id=f"{heading} {len(found)}"))
    return found


def test_every_recipe_has_a_snippet() -> None:
    recipes = {name for name in vars(raftkv.Client) if not name.startswith("_")}
    assert [name for name in sorted(recipes) if f"kv.{name}(" not in "".join(str(s.values) for s in snippets())] == []


@pytest.mark.parametrize("code", snippets())
async def test_snippet(healthy: Cluster, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    compiled: CodeType = compile(
        code.replace(ENDPOINTS, healthy.endpoints), str(PAGE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    with raftkv.Client(healthy.endpoints, timeout=10) as kv:
        result = eval(compiled, {"raftkv": raftkv, "kv": kv})
        if result is not None:
            await result
        rounds = {pair.lease for pair in kv.get_prefix("rdzv/")}  # they end by themselves, when nobody is left
        assert set(kv.leases()) <= rounds, "everything was given back"
