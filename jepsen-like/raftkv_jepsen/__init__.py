"""The fault harness: real daemons, real faults, and a verdict on what their clients saw. docs/fault-testing.md is its page.

A run is cluster + workload + nemesis -> history -> checkers -> report. Each is a folder or a file of its own here, and each
can be used without the others: the checkers judge a history whoever recorded it, the simulator's included.
"""
