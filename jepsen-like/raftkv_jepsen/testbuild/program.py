"""How a node is told to run the test build instead of the product."""

import sys
from typing import Final

from raftkv_jepsen.machines.process import HARNESS_PATH, REPOSITORY

PROGRAM: Final = (sys.executable, "-m", "raftkv_jepsen.testbuild")
ENVIRONMENT: Final = {"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'cli'}:{HARNESS_PATH}"}
