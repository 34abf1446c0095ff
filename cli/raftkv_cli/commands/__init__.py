"""One file per verb; each defines `VERB` (see spec.py), and only the one that was asked for is imported."""
