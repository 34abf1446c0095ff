"""The table of verbs: name, module and one line for `raftkv --help`, so that no module is imported to list them."""

from importlib import import_module

from raftkv_cli.spec import Verb

VERBS: dict[str, tuple[str, str]] = {
    "put": ("put", "set a key"),
    "get": ("get", "read a key or a range"),
    "del": ("delete", "delete a key or a range"),
    "watch": ("watch", "print changes as they happen"),
    "txn": ("txn", "compare, then do the one or the other, atomically"),
    "lease": ("lease", "grant, keep alive and end leases"),
    "lock": ("lock", "run a command under a lock"),
    "semaphore": ("semaphore", "run a command while there is room for it"),
    "elect": ("elect", "take part in an election, or see who leads"),
    "barrier": ("barrier", "close, open and wait at a gate; meet at a point"),
    "queue": ("queue", "hand items to workers, each to one at a time"),
    "counter": ("counter", "add to a number, once per call"),
    "pool": ("pool", "share machines, memory and licences by weight"),
    "job": ("job", "submit jobs, work on them, and see what became of them"),
    "compact": ("compact", "let go of history before a revision"),
    "status": ("status", "what every member says about itself"),
    "health": ("health", "can the endpoints serve right now?"),
    "member": ("member", "list, add, remove, promote and replace members"),
    "move-leader": ("move_leader", "hand leadership to another member"),
    "user": ("user", "users: who may log in, and with which roles"),
    "role": ("role", "roles: what their users may read and write"),
    "auth": ("auth", "have everybody log in, or nobody"),
    "snapshot": ("snapshot", "save a member's data, look into a saved file, make a new cluster of it"),
    "defrag": ("defrag", "give the file system the free pages of members' stores"),
    "recover": ("recover", "make a survivor of a lost quorum the first member of a new cluster"),
    "bench": ("bench", "put load on a cluster and measure it"),
    "torch-proxy": ("torch_proxy", "serve PyTorch's TCPStore protocol on this machine"),
    "serve": ("serve", "run one member"),
    "dev": ("dev", "run a whole cluster on this machine"),
    "version": ("version", "print the version"),
}


def load_verb(name: str) -> Verb:
    """Import a verb of the table."""
    module_name, summary = VERBS[name]
    verb = import_module(f"raftkv_cli.commands.{module_name}").VERB
    assert isinstance(verb, Verb), f"commands/{module_name}.py defines VERB"
    assert (verb.name, verb.summary) == (name, summary), f"commands/{module_name}.py says the same as the table"
    return verb
