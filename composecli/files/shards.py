"""Shards: weights in several files, and the index that says which tensor is in which file.

Hugging Face writes `model.safetensors.index.json` or `pytorch_model.bin.index.json`:

    {"metadata": {...}, "weight_map": {"fc.weight": "model-00001-of-00002.safetensors", ...}}

Source of the format: "Sharded checkpoints" in the documentation of huggingface_hub.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

MAX_INDEX_BYTES = 64 * 2**20
MAX_SHARDS = 10_000
HEAD_BYTES = 4096
MAX_SHOWN_NAME = 80

_WEIGHT_MAP = "weight_map"


class NotAnIndex(Exception):
    """The file is not an index, or names files that cannot be its shards."""


def is_index(head: bytes, _size: int = 0) -> bool:
    """Return whether a file starts as an index does."""
    return head.lstrip().startswith(b"{") and f'"{_WEIGHT_MAP}"'.encode() in head


def read_index(path: str) -> Mapping[str, tuple[str, ...]]:
    """Return the path of each shard, with the names of the tensors that the index places there.

    Raises:
        NotAnIndex: as `parse_index` does, or if it is too large.
        OSError: if it cannot be read.
    """
    return parse_index(index_bytes(path), os.path.dirname(path))


def shards_of(path: str) -> tuple[str, ...]:
    """Return the files that an index names; none if the file is no index, or cannot be read."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
        if not is_index(head):
            return ()
        return tuple(read_index(path))
    except (NotAnIndex, OSError, ValueError):
        return ()


def index_bytes(path: str) -> bytes:
    """Return the content of an index.

    Raises:
        NotAnIndex: if it is too large.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_INDEX_BYTES + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise NotAnIndex(f"it has more than {MAX_INDEX_BYTES:,} bytes")
    return data


def parse_index(data: bytes, folder: str) -> Mapping[str, tuple[str, ...]]:
    """Return the path of each shard, with the names of the tensors that an index places there.

    Shards are in the folder of the index.

    Raises:
        NotAnIndex: if it is damaged, or a shard is elsewhere or missing.
    """
    shards = dict[str, list[str]]()
    for name, file in _weight_map(data).items():
        if not isinstance(file, str) or os.path.basename(file) != file or file in ("", ".", ".."):
            place = _shown(repr(file))
            raise NotAnIndex(f"it places {_shown(name)} in {place}, which is not a file beside it")
        shards.setdefault(os.path.join(folder, file), []).append(name)
    if not shards:
        raise NotAnIndex("it names no files")
    if len(shards) > MAX_SHARDS:
        raise NotAnIndex(f"it names {len(shards):,} files")
    for shard in shards:
        _refuse_no_file(shard)
    return {shard: tuple(names) for shard, names in shards.items()}


def _refuse_no_file(shard: str) -> None:
    """Refuse a shard that is not a file.

    Raises:
        NotAnIndex: if it is missing, or is anything else.
    """
    name = os.path.basename(shard)
    if not name.isprintable():
        name = repr(name)
    name = _shown(name)
    if os.path.isfile(shard):
        return
    if os.path.exists(shard):
        raise NotAnIndex(f"{name} is not a regular file")
    if _is_link(shard):
        raise NotAnIndex(f"its file {name} is a link to {_target(shard)}, which is missing")
    raise NotAnIndex(f"its file {name} is missing")


def _is_link(path: str) -> bool:
    """Return whether a path is a symbolic link; no path with a null byte is one."""
    try:
        return os.path.islink(path)
    except ValueError:
        return False


def _target(link: str) -> str:
    """Return the path that a link leads to, as it is written there."""
    return _shown(os.readlink(link))


def _shown(text: str) -> str:
    """Return a text, cut if it is long."""
    return text[:MAX_SHOWN_NAME]


def _weight_map(data: bytes) -> dict[str, Any]:
    """Return the file of each tensor, as the index states it."""
    try:
        content = json.loads(data, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise NotAnIndex("it is not JSON") from None
    weight_map = None
    if isinstance(content, dict):
        weight_map = content.get(_WEIGHT_MAP)
    if not isinstance(weight_map, dict):
        raise NotAnIndex(f"it has no {_WEIGHT_MAP}")
    return weight_map


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON.

    Raises:
        NotAnIndex: if it has a key twice: readers differ in which value they take.
    """
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        (repeated, _), *_ = counts.most_common(1)
        raise NotAnIndex(f"it has {_shown(repeated)} twice")
    return content
