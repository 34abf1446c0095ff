"""What every kind of test shares: where the project is, and a command line that the caller's own settings do not change."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    # Before any test module is imported, and for every process that a test starts.
    for name in ("RAFTKV_ENDPOINTS", "RAFTKV_CLUSTER_NAME", "RAFTKV_DEBUG"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def project() -> Path:
    """The directory of the checkout."""
    return PROJECT
