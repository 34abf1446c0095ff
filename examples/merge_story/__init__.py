"""The parts of examples/merge_scheduling.py: the jobs, the two ways of merging, the books, and the picture."""
