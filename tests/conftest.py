"""Fixtures and settings for all tests. torch is imported only by the tests that use it."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

# Read by torch when a test imports it.
os.environ["OMP_NUM_THREADS"] = "1"
# No folder can be created below a device, so no test reads results that another one has cached.
# Tests of the cache set a folder of their own.
os.environ["XDG_CACHE_HOME"] = os.devnull

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.models import Shelf

settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have counted: processes of pytest-xdist have no terminal of their own.

    The parts of one test are added up.
    """
    totals = defaultdict[str, Counter[str]](Counter)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        for name, counts in getattr(report, "user_properties", ()):
            if name == "counts" and report.when == "teardown":
                totals[report.nodeid.partition("[")[0]].update(counts)
    for test, counts in totals.items():
        terminalreporter.write_line(f"{test}: {dict(counts)}")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Saved models, each created when a test first asks for it."""
    from tests.models import Shelf

    return Shelf(tmp_path_factory.mktemp("models"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
