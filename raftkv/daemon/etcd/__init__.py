"""The etcd v3 API of a member, whichever door a call comes through: gRPC (HTTP/2) and the JSON gateway share all of it.

A door finds a path in PROCEDURES (procedures.py). A Method (raftkv/etcd/methods.py) is one command: the door gives it to its Desk, which
gathers a whole read of the socket into groups. Anything else is a Procedure: the door opens it and passes messages in both directions.
"""
