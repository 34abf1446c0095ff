"""`raftkv serve`: run one member. Only a door: the daemon's settings say which options there are, the daemon does the work.

The settings are read before anything of the server is imported, so that a bad value is refused at once and with or without
the packages of raftkv[server].
"""

import argparse
import os
from typing import NoReturn

from raftkv.daemon.config import DaemonConfig, add_arguments, load_config
from raftkv.errors import MissingExtra
from raftkv_cli import lifeline
from raftkv_cli.spec import Call, UsageError, Verb

SERVER_MODULES = frozenset({"uvloop", "aiohttp", "lmdb", "prometheus_client"})
INSTALL = "pip install 'raftkv[server]'"
EPILOG = """examples:
  raftkv serve --name n1 --data-dir /var/lib/raftkv --listen 0.0.0.0:2379 --listen-peer 0.0.0.0:2380 \\
      --advertise n1:2379 --advertise-peer n1:2380 \\
      --initial-cluster n1=n1:2380,n2=n2:2380,n3=n3:2380 --cluster-name prod
  raftkv serve --config /etc/raftkv.toml

SIGTERM hands leadership over and exits with 0; SIGUSR2 cycles the log level."""


class Parser(argparse.ArgumentParser):
    """argparse, but its complaints leave as every other: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def run(call: Call) -> int:
    lifeline.hold()
    parser = Parser(
        prog="raftkv serve",
        description="Run one member of a cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_arguments(parser)
    try:
        flags = vars(parser.parse_args(call.rest))
    except SystemExit:  # after --help
        return 0
    return serve(load_config(flags, os.environ))


def serve(config: DaemonConfig) -> int:
    """Hand over to the daemon. Raises MissingExtra when what it needs is not installed."""
    try:
        from raftkv.daemon.main import run as run_daemon
    except ModuleNotFoundError as error:
        if error.name not in SERVER_MODULES:
            raise
        raise MissingExtra(f"raftkv serve needs {error.name}: {INSTALL}") from None
    return run_daemon(config)


VERB = Verb(name="serve", summary="run one member", run=run, uses_cluster=False, parses_itself=True)
