"""Planted bugs: mistakes that a consensus store could make, each put into the production code for the length of a run.

One file per part of the code that is made wrong. Each bug names what is wrong and which promise breaks; `bugs.py` beside this
folder runs them. A bug is a small context manager that replaces one function; nothing here changes the simulator or its checks.
"""
