"""What the integration tests stand on: real processes, real sockets, real faults.

A test says what goes wrong and what must hold. How a process is started, paused, cut off or starved of disk is written once, in
the fault harness (jepsen-like/raftkv_jepsen/machines), and handed on here; the writers and their ledger are the tests' own.
"""
