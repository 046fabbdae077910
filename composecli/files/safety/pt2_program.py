"""Finding the code that a torch.export archive would run, member by member.

PyTorch unpickles weights if their index asks for that, and example inputs always; `pt2_graph` looks
into the programs. What an export does not write is a reason not to load the archive.

Source of the format: `torch/_export/serde/schema.py`, schema major version 8, and
`torch/export/pt2_archive`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from composecli.files.archive import Archive
from composecli.files.pt2_layout import (
    IndexEntry,
    dtype_of,
    geometry_of,
    index_entries,
    is_known_member,
    is_object_record,
    is_program,
    is_record_name,
)
from composecli.files.safety.pt2_graph import unsafe_program
from composecli.files.safety.pt2_samples import unsafe_samples
from composecli.files.safety.refusals import Reason

# Sizes, strides and offsets are signed integers of 64 bits.
MAX_SIZE = 2**63


def unsafe_parts(archive: Archive) -> Iterator[Reason]:
    """Yield the reasons not to load the archive; each names the member and the part of it."""
    for name in sorted(archive.names):
        if not is_known_member(name):
            yield Reason(f"a member that torch.export does not write: {name}")
        elif is_program(name):
            yield from unsafe_program(archive.json(name))
        elif name.startswith("data/") and name.endswith(".json"):
            yield from _check_index(name, archive.json(name))
        elif name.startswith("data/") and name.endswith(".pt"):
            yield from unsafe_samples(archive, name)


def record_problems(archive: Archive) -> Iterator[str]:
    """Yield a message for each tensor that reaches behind the end of its record."""
    for entry in index_entries(archive):
        if entry.is_plain:
            yield from _check_record(archive, entry)


def _check_record(archive: Archive, entry: IndexEntry) -> Iterator[str]:
    """Yield why a plain tensor does not lie inside its record."""
    meta = entry.payload["tensor_meta"]
    assert meta is not None
    try:
        item_size = dtype_of(meta).size
        sizes, strides, offset = geometry_of(meta)
        numbers = (offset, *sizes, *strides)
        are_natural = all(type(number) is int and 0 <= number < MAX_SIZE for number in numbers)
        last = offset
        for size, stride in zip(sizes, strides, strict=True):
            last += (size - 1) * stride
    except (KeyError, TypeError, ValueError):
        yield f"{entry.name} has invalid sizes"
        return
    if entry.record not in archive.names:
        yield f"the record of {entry.name} is missing"
        return
    end = (last + 1) * item_size
    record_size = archive.size(entry.record)
    reaches_behind = 0 not in sizes and end > record_size
    if not are_natural or reaches_behind:
        yield f"{entry.name} reaches to byte {end:,} of {record_size:,}"


def _check_index(member: str, data: Any) -> Iterator[Reason]:
    """Yield a reason for each entry that is pickled or has no plain record."""
    entries = data.get("config") if isinstance(data, dict) else None
    if not isinstance(entries, dict):
        return
    for name, payload in entries.items():
        is_pickled = not isinstance(payload, dict) or payload.get("use_pickle") is not False
        if is_pickled:
            yield Reason(f"{member} has {name} in a pickle")
            continue
        path_name = payload.get("path_name")
        if not is_record_name(path_name):
            yield Reason(f"{member} has {name} at {path_name}")
        elif is_object_record(path_name):
            yield Reason(f"{member} has {name} as an object")
