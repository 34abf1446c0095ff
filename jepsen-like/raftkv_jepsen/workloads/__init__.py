"""What the clients do, and how it is judged: one noun per file, the table of them all in catalogue.py."""
