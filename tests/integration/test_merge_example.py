"""The example of merge scheduling runs, its checks hold, and its picture is one."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .harness.process import raftkv_environment

pytestmark = pytest.mark.integration

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "merge_scheduling.py"


@pytest.mark.long
def test_a_short_day_of_merging(tmp_path: Path) -> None:
    picture = tmp_path / "day.svg"
    words = (
        sys.executable,
        str(EXAMPLE),
        "--hours",
        "6",
        "--second-per-hour",
        "0.7",
        "--seed",
        "3",
        "--picture",
        str(picture),
    )
    ran = subprocess.run(words, capture_output=True, env=raftkv_environment(), timeout=110, check=False, cwd=tmp_path)
    text = ran.stdout.decode()
    assert ran.returncode == 0, text + ran.stderr.decode()
    assert text.count("ok    ") == 5
    assert text.count("the leader, killed") == 2
    lines = ElementTree.parse(picture).getroot().findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 6
    assert all(len(line.get("points", "").split()) > 10 for line in lines)
