"""Options of the conformance suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--conformance-home` keeps Kiln's store between runs, which saves building the base images."""
    parser.addoption("--conformance-home", default=None, help="a folder for Kiln's store that is kept")
