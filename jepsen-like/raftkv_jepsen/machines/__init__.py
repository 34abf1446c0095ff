"""The machines of a test: real processes, real sockets, hosts in namespaces, disks that break. Shared by tests/integration.

How a process is started, paused, cut off or starved of disk lives here; what must hold meanwhile does not. The raw connection
(native.py) is for seeing one request meet one member: a client that retries by itself hides exactly those answers.
"""
