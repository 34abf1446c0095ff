"""The client's verbs on an existing etcd cluster: what `raftkv.connect("etcd://...")` and `raftkv.Client("etcd://...")` run on.

Everything above a command and below an answer (wire/commands.py) stays the client's: results, transactions, kept leases, recipes. Here a command
becomes calls of etcd and their responses an answer. That is written once, as generators without sockets or clocks (calls.py, writes.py), which
course.py takes through the cluster; blocking.py and dispatch.py drive them. docs/etcd-engine.md is the page for users.
"""
