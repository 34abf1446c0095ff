"""`pytest tests/scenarios --rewrite` records the stories anew; read the difference before committing it."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", default=False, help="record the golden stories anew")
