"""What the integration tests stand on: real processes, real sockets, real faults.

A test says what goes wrong and what must hold; how a process is started, paused, cut off or starved of disk lives here.
The harness speaks the native protocol itself (native.py) where a test needs to see one request meet one member, because a
client that retries by itself hides exactly the answers those tests are about.
"""
