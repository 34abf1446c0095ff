"""One child process: shared with the fault harness, which owns the file."""

from raftkv_jepsen.machines.process import RAFTKV, Process, raftkv_environment, run_raftkv

__all__ = ["Process", "RAFTKV", "raftkv_environment", "run_raftkv"]
