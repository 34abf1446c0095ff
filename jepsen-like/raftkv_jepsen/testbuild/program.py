"""How a node is told to run the test build instead of the product."""

import sys
from typing import Final

PROGRAM: Final = (sys.executable, "-m", "raftkv_jepsen.testbuild")
