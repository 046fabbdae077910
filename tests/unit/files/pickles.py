"""The pickles in checkpoints, for tests."""

from __future__ import annotations

import io
import zipfile

import torch


def data_pkl(value: object) -> bytes:
    """Save a value with torch, and return the pickle of the checkpoint."""
    data = io.BytesIO()
    torch.save(value, data)
    with zipfile.ZipFile(data) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
