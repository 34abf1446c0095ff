"""The simulator: whole clusters, clients and disasters on one heap of events in virtual time, all of it drawn from one seed.

The consensus core, the replica, the service, the log and the store are those of production; so are the rules by which a client
retries and a member restarts. What stands in for the world is here: clocks, a network, disks, and a thin twin of the daemon's
asyncio glue. `python -m tests.sim --help` says how to run it, docs/consensus.md what it checks.
"""
