"""Imports go downwards only, and what is imported by everybody stays light."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("asyncio", "aiohttp", "uvloop", "lmdb", "rich", "ssl", "concurrent.futures", "prometheus_client", "argparse")


def test_import_linter_finds_the_layers_kept(project: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    command = str(linter) if linter.exists() else shutil.which("lint-imports")
    assert command, "import-linter is part of raftkv[dev]"
    environment = {**os.environ, "PYTHONPATH": str(project / "jepsen-like")}  # not installed: it is in no wheel
    result = subprocess.run([command], cwd=project, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def loaded_by(project: Path, statement: str) -> set[str]:
    """The modules in memory after `statement` in a fresh interpreter."""
    script = f"import sys; sys.path[:0] = ['.', 'cli']; {statement}; print('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=project, capture_output=True, text=True, timeout=60, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import raftkv",
        "from raftkv import Client",
        "import raftkv_cli.main",
        "import raftkv_cli.commands.get",
        "import raftkv_cli.commands.put",
        "import raftkv_cli.commands.delete",
        "import raftkv_cli.commands.txn",
        "from raftkv_cli.main import main; main(['get', 'k', '--endpoints', '127.0.0.1:1', '--timeout', '0.1'])",
        "from raftkv_cli.main import main; main(['put', 'k', 'v', '--endpoints', '127.0.0.1:1', '--timeout', '0.1'])",
    ],
)
def test_nothing_heavy_is_imported_by(project: Path, statement: str) -> None:
    assert loaded_by(project, statement).isdisjoint(HEAVY)


def test_the_verbs_table_imports_no_verb(project: Path) -> None:
    loaded = loaded_by(project, "import raftkv_cli.main")
    assert not [name for name in loaded if name.startswith("raftkv_cli.commands.")]
