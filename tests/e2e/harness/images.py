"""The image under test, made as a site without a registry makes it: a base from debootstrap, wheels built outside."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from .engine import Engine, EngineUnavailable, install, run

BASE_IMAGE = "RAFTKV_E2E_BASE_IMAGE"
SUITE, SUITE_PYTHON = "bookworm", (3, 11)
MIRROR = "http://deb.debian.org/debian"
LEFT_OUT = ("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache", "var/lib/apt/lists")
BASE_TAG = f"raftkv-e2e-base:{SUITE}"
CONTEXT = ("Dockerfile", ".dockerignore", "docker-compose.yml", "pyproject.toml", "README.md", "raftkv", "cli")
WHEELS = "dist/wheels"


def make_context(project: Path, directory: Path) -> None:
    """A build context in `directory`: the project's own files and, under dist/wheels, everything that pip will need."""
    if sys.version_info[:2] != SUITE_PYTHON and BASE_IMAGE not in os.environ:
        raise EngineUnavailable(
            f"the local base image has Python {SUITE_PYTHON[0]}.{SUITE_PYTHON[1]}, wheels made by this one would not fit: "
            f"name an image in {BASE_IMAGE}"
        )
    for name in CONTEXT:
        source = project / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, directory / name)
    wheels = directory / WHEELS
    # Outside of the context, because a build leaves build/ and *.egg-info behind.
    source = directory.parent / f"{directory.name}-source"
    shutil.copytree(directory, source)
    run([sys.executable, "-m", "pip", "wheel", "-q", "--wheel-dir", str(wheels), f"{source}[server,doors,table]"])
    shutil.rmtree(source)


def base_image(engine: Engine, directory: Path) -> str:
    """The name of an image with Python: the one in RAFTKV_E2E_BASE_IMAGE, else a minimal Debian made here."""
    named = os.environ.get(BASE_IMAGE)
    if named:
        return named
    install(("debootstrap",), ("debootstrap",))
    root = directory / "root"
    packages = "python3,python3-venv"
    try:
        run(["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(root), MIRROR])
    except subprocess.CalledProcessError as error:
        raise EngineUnavailable(f"debootstrap failed: {error.stdout.strip()[-300:]}") from error
    excluded = [f"--exclude=./{path}/*" for path in LEFT_OUT]
    with subprocess.Popen(
        ["tar", "-C", str(root), "--numeric-owner", *excluded, "-c", "."], stdout=subprocess.PIPE
    ) as tar:
        command = ["docker", "import", "-", BASE_TAG]
        subprocess.run(command, stdin=tar.stdout, env=engine.environment, capture_output=True, check=True)
    assert tar.returncode == 0, "tar read the whole base"
    shutil.rmtree(root)
    return BASE_TAG


def remove_images(engine: Engine, *made_here: str) -> None:
    """Remove what a test made: the named images, and what the classic builder leaves of the build stage."""
    for image in made_here:
        if engine.docker("images", "-q", image):
            engine.docker("rmi", "--force", image)
    engine.docker("image", "prune", "--force", "--filter", "label=raftkv.stage=build")
