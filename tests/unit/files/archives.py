"""Archives that are written without torch, for tests."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path


def write_archive(
    path: Path,
    members: Mapping[str, bytes],
    *,
    folder: str = "archive/",
    compressed: Collection[str] = (),
) -> Path:
    """Write a zip file with these members in a folder, as PyTorch does."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            method = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            archive.writestr(folder + name, data, compress_type=method)
    return path
