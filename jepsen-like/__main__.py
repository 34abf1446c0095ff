"""`python jepsen-like`: the fault harness, by whatever Python; the one of `make setup` takes over where ours lacks the packages."""

import importlib.util
import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT / "jepsen-like"), str(PROJECT), str(PROJECT / "cli")]

if any(importlib.util.find_spec(name) is None for name in ("msgpack", "lmdb", "uvloop", "aiohttp")):
    prepared = PROJECT / ".venv" / "bin" / "python"
    if not prepared.exists() or Path(sys.executable) == prepared:
        sys.exit("raftkv's packages are not installed here: run `make setup` first")
    os.execv(prepared, [str(prepared), *sys.argv])

from raftkv_jepsen.main import entry  # noqa: E402

entry()
