"""What every test shares: one compute thread, quiet torch, and a folder of small saved models."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
# No folder can be made there: what a test finds, it finds itself. Tests of the cache name a folder of their own.
os.environ["XDG_CACHE_HOME"] = os.devnull

from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.models import Shelf

torch.set_num_threads(1)
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Saved models, each made when a test first asks for it."""
    return Shelf(tmp_path_factory.mktemp("models"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
