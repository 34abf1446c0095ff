"""What goes wrong, one noun per file: each has a table of kinds, schedule.py draws from all of them."""
