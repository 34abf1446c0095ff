"""A child that ends with its parent, even when the parent is killed with SIGKILL (Linux: PR_SET_PDEATHSIG).

The child asks for it itself, in its first lines: running code between fork and exec is not safe in a parent with threads. The
parent's pid travels in a variable, so that a parent that died in between is noticed.
"""

import os
import signal
import sys
from pathlib import Path

import raftkv
import raftkv_cli

VARIABLE = "RAFTKV_LIFELINE_PID"
PR_SET_PDEATHSIG = 1


def environment() -> dict[str, str]:
    """What to add to the child's environment: the lifeline, and where our packages are, installed or not."""
    roots = {str(Path(package.__file__ or "").parent.parent) for package in (raftkv, raftkv_cli)}
    path = os.pathsep.join([*sorted(roots), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {VARIABLE: str(os.getpid()), "PYTHONPATH": path}


def hold() -> None:
    """In the child: end with SIGTERM when the parent ends. Nothing happens without the variable, or where there is no prctl."""
    parent = os.environ.pop(VARIABLE, "")
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != parent:
        os.kill(os.getpid(), signal.SIGTERM)
