"""`python -m raftkv_jepsen.testbuild serve ...`: the command line of raftkv, after what the environment asks for was put in."""

import os
import runpy
from pathlib import Path

from raftkv_jepsen.testbuild import bugs, clock, crashpoints, versions


def main() -> None:
    """All may be absent: then it is the product."""
    if os.environ.get(clock.FILE):
        clock.MovedClock(Path(os.environ[clock.FILE])).install()
    if os.environ.get(crashpoints.ARM):
        crashpoints.arm(os.environ[crashpoints.ARM])
    if os.environ.get(bugs.PLANT):
        bugs.plant(os.environ[bugs.PLANT])
    if os.environ.get(versions.VERSION):
        versions.become(os.environ[versions.VERSION])
    runpy.run_module("raftkv_cli", run_name="__main__")


if __name__ == "__main__":
    main()
