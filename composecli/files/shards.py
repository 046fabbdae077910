"""Shards: weights in several files, and the index that says which tensor is in which file.

Hugging Face writes `model.safetensors.index.json` or `pytorch_model.bin.index.json`:

    {"metadata": {...}, "weight_map": {"fc.weight": "model-00001-of-00002.safetensors", ...}}

Source of the format: "Sharded checkpoints" in the documentation of huggingface_hub.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

MAX_INDEX_BYTES = 64 * 2**20
MAX_SHARDS = 10_000
MAX_SHOWN_NAME = 80

_WEIGHT_MAP = "weight_map"


class NotAnIndex(Exception):
    """The file is not an index, or names files that cannot be its shards."""


def is_index(head: bytes, _size: int = 0) -> bool:
    """Return whether a file starts as an index does."""
    return head.lstrip().startswith(b"{") and f'"{_WEIGHT_MAP}"'.encode() in head


def read_index(path: str) -> Mapping[str, tuple[str, ...]]:
    """Return the path of each shard, with the names of the tensors that the index places there.

    Shards are beside the index.

    Raises:
        NotAnIndex: if it is damaged, or a shard is elsewhere or missing.
        OSError: if it cannot be read.
    """
    folder = os.path.dirname(path)
    shards = dict[str, list[str]]()
    for name, file in _weight_map(path).items():
        if not isinstance(file, str) or os.path.basename(file) != file or file in ("", ".", ".."):
            raise NotAnIndex(f"it places {name} in {file!r}, which is not a file beside it")
        shards.setdefault(os.path.join(folder, file), []).append(name)
    if not shards or len(shards) > MAX_SHARDS:
        raise NotAnIndex(f"it names {len(shards):,} files")
    for shard in shards:
        if not os.path.exists(shard):
            raise NotAnIndex(f"its file {_shown(shard)} is missing")
        if not os.path.isfile(shard):
            raise NotAnIndex(f"{_shown(shard)} is not a regular file")
    return {shard: tuple(names) for shard, names in shards.items()}


def _shown(shard: str) -> str:
    """Return the name of a shard, cut if it is long."""
    return os.path.basename(shard)[:MAX_SHOWN_NAME]


def _weight_map(path: str) -> dict[str, Any]:
    """Return the file of each tensor, as the index states it."""
    with open(path, "rb") as file:
        data = file.read(MAX_INDEX_BYTES + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise NotAnIndex(f"it has more than {MAX_INDEX_BYTES:,} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise NotAnIndex("it is not JSON") from None
    weight_map = None
    if isinstance(content, dict):
        weight_map = content.get(_WEIGHT_MAP)
    if not isinstance(weight_map, dict):
        raise NotAnIndex(f"it has no {_WEIGHT_MAP}")
    return weight_map
