"""The command line of raftkv.

One file per verb in `commands/`, one table of them in `verbs.py`. Nothing here knows the protocol: verbs call the client
library, and `serve` calls the daemon. What `get` and `put` import decides how fast they answer, so a verb's module is
imported only when it is asked for, and heavy modules only inside the verb that draws or runs something.
"""
