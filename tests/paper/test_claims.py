"""Which sections and figures of the dissertation have tests here: each that raftkv is built on, or this test fails.

What is not listed is not used: chapters 1, 2, 7, 8 and 11, log-structured compaction (5.2 to 5.4 beside snapshots), and the
user study. Our own additions say so in the docstring of their test.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

SECTIONS = [
    *("3.2", "3.3", "3.4", "3.5", "3.6.1", "3.6.2", "3.6.3", "3.7", "3.8", "3.9", "3.10"),  # the core, and transfer
    *("4.1", "4.2", "4.2.1", "4.2.2", "4.2.3", "4.3"),  # membership
    *("5.1", "5.3", "6.2", "6.3", "6.4", "6.4.1"),  # snapshots; clients and reads
    *("9.1", "9.2", "9.3", "9.5", "9.6", "10.2.1", "10.2.2"),  # elections; the disk in parallel, batches
]
FIGURES = [
    *("3.1", "3.2", "3.3", "3.4", "3.5", "3.6", "3.7", "3.8"),
    *("4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.8", "5.3", "6.3"),
]


def claims() -> Iterator[tuple[str, str]]:
    """The name of every test here, and what its docstring says."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if path != Path(__file__) and isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield f"{path.name}: {node.name}", ast.get_docstring(node) or ""


CLAIMS = list(claims())


def test_every_test_names_its_claim() -> None:
    nameless = [name for name, text in CLAIMS if not re.search(r"\b\d+\.\d|[Ff]igure \d|Our addition", text)]
    assert nameless == []


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_a_test(section: str) -> None:
    pattern = re.compile(rf"(?<![\d.])(?<!igure ){re.escape(section)}(?![\d]|\.\d)")
    assert any(pattern.search(text) for _, text in CLAIMS), f"nothing is said about {section}"


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_played(figure: str) -> None:
    pattern = re.compile(rf"[Ff]igure {re.escape(figure)}(?!\d)")
    words = f"figure_{figure.replace('.', '_')}_"
    assert any(pattern.search(text) or words in name for name, text in CLAIMS), f"figure {figure} is not played"
