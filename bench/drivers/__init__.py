"""Load generators: one file per client library, one for the shapes of load, one process entry (worker.py)."""
