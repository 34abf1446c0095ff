"""What an installation puts into site-packages: two packages, the marker of types, one script, and nothing called cli or tests."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from a copy of the sources, without a network."""
    project = Path(__file__).resolve().parent.parent.parent
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(project / name, source / name)
    for name in ("raftkv", "cli", "tests/tidy", "docs", "examples"):
        shutil.copytree(project / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(directory), str(source)], check=True, timeout=120)
    (path,) = directory.glob("raftkv-*.whl")
    return zipfile.ZipFile(path)


def test_only_our_two_packages_are_installed(wheel: zipfile.ZipFile) -> None:
    top_level = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"raftkv", "raftkv_cli"}


def test_every_source_file_is_in_it(wheel: zipfile.ZipFile, project: Path) -> None:
    names = set(wheel.namelist())
    expected = {
        str(path.relative_to(root))
        for root, package in ((project, "raftkv"), (project / "cli", "raftkv_cli"))
        for path in (root / package).rglob("*.py")
    }
    assert {name for name in names if name.endswith(".py")} == expected
    assert {"raftkv/py.typed", "raftkv_cli/py.typed"} <= names


def test_the_script_and_the_licence_are_in_it(wheel: zipfile.ZipFile) -> None:
    texts = {name.rpartition("/")[2]: name for name in wheel.namelist() if ".dist-info/" in name}
    assert "raftkv = raftkv_cli.main:entry" in wheel.read(texts["entry_points.txt"]).decode()
    assert "Apache License" in wheel.read(texts["LICENSE"]).decode()
    metadata = wheel.read(texts["METADATA"]).decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert len(required) == 1, "the client and the command line need msgpack alone"
    assert "msgpack" in required[0]
