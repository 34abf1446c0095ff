"""What every kind of test shares: where the project is, and a command line that the caller's own settings do not change."""

import os
import signal
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    # Before any test module is imported, and for every process that a test starts.
    for name in ("RAFTKV_ENDPOINTS", "RAFTKV_CLUSTER_NAME", "RAFTKV_DEBUG"):
        os.environ.pop(name, None)
    # A shell that runs the tests in the background has them ignore Ctrl-C, and what is ignored is inherited.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def project() -> Path:
    """The directory of the checkout."""
    return PROJECT
