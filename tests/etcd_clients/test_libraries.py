"""Client libraries of other people, each with a program of ours that does what its users do (programs/), and tooz with its own tests."""

import os
import re
import subprocess
from typing import Any

import pytest

from .environments import LIBRARIES, python_with

pytestmark = pytest.mark.integration

SECONDS_MAX = 120.0
TOOZ_SECONDS_MAX = 400.0
TOOZ_TESTS_MIN = 75
TOOZ_SKIPPED_MAX = 25  # shared locks, and what only other drivers have; as with etcd


@pytest.mark.parametrize("library", LIBRARIES)
def test_library(library: str, make: Any) -> None:
    """The program says by its exit code whether all went as its library promises; each gets a member of its own."""
    command, environment = LIBRARIES[library]()
    server = make()
    done = subprocess.run(
        [*command, "check", server.endpoints], capture_output=True, text=True, timeout=SECONDS_MAX, env=environment
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    assert len(done.stdout.splitlines()) >= 4, "it did all its parts"


@pytest.mark.long
def test_the_tests_of_tooz(make: Any) -> None:
    python = python_with("tooz")
    server = make()
    environment = {**os.environ, "TOOZ_TEST_URL": f"etcd3+http://{server.endpoints}"}
    done = subprocess.run(
        [python, "-m", "testtools.run", "tooz.tests.test_coordination"],
        capture_output=True,
        text=True,
        timeout=TOOZ_SECONDS_MAX,
        env=environment,
    )
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    (ran,) = re.findall(r"Ran (\d+) tests", done.stdout)
    skipped = max(line.count("s") for line in done.stdout.splitlines() if re.fullmatch("[.s]+", line))
    assert int(ran) >= TOOZ_TESTS_MIN
    assert skipped <= TOOZ_SKIPPED_MAX, "a server that refuses everything would skip everything"
