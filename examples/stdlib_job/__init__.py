"""The parts of the main job (examples/main_job.py): its data, its load, and its checks."""
