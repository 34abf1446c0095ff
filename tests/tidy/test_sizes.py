"""Files and functions in proportion, and a header in every file. An exception needs its reason written next to it."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOMS = ("raftkv", "cli", "jepsen-like", "examples", "bench", "deploy")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
HEADER_LINES_MAX = 16

LARGER_FILES: dict[str, str] = {}
"""path: why it is one noun all the same."""

LARGER_FUNCTIONS: dict[str, str] = {}
"""path:function: why it is not cut."""


def sources(project: Path) -> list[Path]:
    return sorted(path for room in ROOMS for path in (project / room).rglob("*.py"))


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_files_are_in_proportion(project: Path) -> None:
    too_large = []
    for path in sources(project):
        name, lines = str(path.relative_to(project)), len(path.read_text().splitlines())
        if lines > FILE_LINES_MAX and name not in LARGER_FILES:
            too_large.append(f"{name}: {lines} lines")
    assert not too_large, f"over {FILE_LINES_MAX} lines; split them, or give the reason in LARGER_FILES: {too_large}"


def test_functions_are_in_proportion(project: Path) -> None:
    too_large = []
    for path in sources(project):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(project)}:{node.name}"
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX and name not in LARGER_FUNCTIONS:
                    too_large.append(f"{name}: {lines} lines")
    assert not too_large, (
        f"over {FUNCTION_LINES_MAX} lines; cut them, or give the reason in LARGER_FUNCTIONS: {too_large}"
    )


def test_every_file_says_what_it_is_for(project: Path) -> None:
    bad = []
    for path in sources(project):
        tree = parsed(path)
        header = ast.get_docstring(tree)
        if tree.body and not header:
            bad.append(f"{path.relative_to(project)}: no header")
        elif header and len(header.splitlines()) > HEADER_LINES_MAX and path.name not in TABLES:
            bad.append(f"{path.relative_to(project)}: a header of {len(header.splitlines())} lines")
    assert not bad, bad


TABLES = {"pools.py", "commands.py", "protocol.py", "users.py"}
"""Headers that hold the wire's tables: the one place where they are written down."""


@pytest.mark.parametrize("allowed", [LARGER_FILES, LARGER_FUNCTIONS])
def test_exceptions_are_still_needed_and_have_a_reason(project: Path, allowed: dict[str, str]) -> None:
    for name, reason in allowed.items():
        path, _, function = name.partition(":")
        assert len(reason) > 20, f"{name}: give the reason"
        assert (project / path).exists(), f"{name} is gone: remove the exception"
        text = (project / path).read_text()
        if function:
            sizes = [
                (node.end_lineno or 0) - node.lineno + 1
                for node in ast.walk(parsed(project / path))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
            ]
            assert max(sizes, default=0) > FUNCTION_LINES_MAX, f"{name} fits now: remove the exception"
        else:
            assert len(text.splitlines()) > FILE_LINES_MAX, f"{name} fits now: remove the exception"
