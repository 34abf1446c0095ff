"""The life of one daemon process: from a checked configuration to exit code 0. Wiring and signals, nothing else.

Order of the start: lock the data directory, look at the machine, open log and store, agree on who we are, listen, tick.
Order of the end: not ready, hand leadership over, finish what is in flight, close the doors, sync, leave.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import secrets
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import uvloop

from raftkv.daemon.config import DaemonConfig
from raftkv.daemon.datadir import DataDirectory
from raftkv.daemon.joining import join
from raftkv.daemon.logs import cycle_level, set_up_logging
from raftkv.daemon.member import Member, found
from raftkv.daemon.membership import load_membership
from raftkv.daemon.preflight import run_preflight
from raftkv.errors import RaftKVError

log = logging.getLogger("raftkv")

SWITCH_INTERVAL_SECONDS = 0.0005
GC_THRESHOLDS = (50_000, 20, 100)
SHUTDOWN_SECONDS = 4.0
"""For the hand-over and what is in flight: of the 5 s that the contract gives, closing and syncing have the rest."""


def run(config: DaemonConfig) -> int:
    """Serve until a signal; the process's exit code. Errors that the operator can mend are one line on stderr and 1."""
    set_up_logging(level=config.log_level, format=config.log_format, member_name=config.name)
    try:
        if config.join is None and load_membership(Path(config.data_dir)) is None:
            found(config)  # refuses what cannot be founded before anything is made
        with contextlib.closing(DataDirectory(Path(config.data_dir))) as directory:
            run_preflight(directory.path, config.limits)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_serve(config, directory))
    except RaftKVError as error:
        print(f"raftkv serve: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"raftkv serve: {error}", file=sys.stderr)
        return 1


async def _serve(config: DaemonConfig, directory: DataDirectory) -> NoReturn:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_stop_signal(name: str) -> None:
        if stop.is_set():
            log.warning("second signal %s: exiting at once", name)
            os._exit(1)
        log.info("%s: shutting down", name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop_signal, signal.Signals(number).name)
    loop.add_signal_handler(signal.SIGUSR2, cycle_level)

    # The journal and the commit thread hand the interpreter back often: the loop must not wait 5 ms for its turn.
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    # Of all randomness in the process this is the only source: elections must not be in step between members.
    source = random.Random(secrets.randbits(128))
    stopped = asyncio.ensure_future(stop.wait())
    if config.join is not None and load_membership(directory.path) is None and directory.is_new():
        joining = asyncio.ensure_future(join(config, directory.path))
        await asyncio.wait([stopped, joining], return_when=asyncio.FIRST_COMPLETED)
        if not joining.done():
            directory.close()
            os._exit(0)
        joining.result()
    member = Member.open(config, directory, loop=loop, draw_ticks=source.randint)
    # What was loaded stays: the collector need not look at it again, and looks at the rest less often than by default.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    await member.start()
    try:
        ends: list[asyncio.Future[Any]] = [stopped, member.failed, member.removed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    if member.failed.done():
        # Whatever broke may have broken the state in memory too: what counts is in the log, and nothing else is saved.
        print(f"raftkv serve: stopped after a fatal error: {member.failed.result()}", file=sys.stderr, flush=True)
        logging.shutdown()
        os._exit(1)
    await member.shut_down(loop.time() + SHUTDOWN_SECONDS)
    # Everything is closed and on disk. Closing the loop would wait for a name look-up under way, 10 s when its host is gone.
    directory.close()
    logging.shutdown()
    os._exit(0)
