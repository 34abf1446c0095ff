"""What every kind of test shares: where the project is, and a command line that the caller's own settings do not change."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

PROJECT = Path(__file__).resolve().parent.parent


# How long an example takes says nothing here: a busy machine may stop any process for most of a second.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pytest_configure() -> None:
    settings.load_profile("untimed")
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
