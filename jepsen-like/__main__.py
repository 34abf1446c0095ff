"""`python jepsen-like`: the fault harness."""

from raftkv_jepsen.main import entry

entry()
