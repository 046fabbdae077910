"""Parts of checkpoints as archives of their own: what PyTorch loads in the place of a file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch

from composecli.files.archive import Archive
from composecli.files.checkpoint_archive import (
    checkpoint_skeleton,
    record_starts,
    whole_skeleton,
    write_checkpoint,
)
from composecli.files.checkpoint_entries import entry_at
from composecli.files.members import Members, open_members

VALUE = {"kept": {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, "rest": torch.ones(999)}


@pytest.fixture(params=[True, False], ids=["zip", "old format"])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save(VALUE, path, _use_new_zipfile_serialization=request.param)
    return path


def part(members: Members) -> object:
    entry = entry_at(members.pickle("data.pkl").value, "kept")
    assert entry is not None
    return entry.node


def test_a_part_is_loaded_with_its_values_and_nothing_else(path: Path) -> None:
    with open_members(path) as members, write_checkpoint(members, part(members)) as file:
        loaded: Any = torch.load(file, weights_only=True)
        assert file.seek(0, io.SEEK_END) < 2000
    assert loaded.keys() == {"a", "b"}
    assert torch.equal(loaded["a"], VALUE["kept"]["a"])


def test_the_records_of_a_skeleton_start_where_they_should(path: Path) -> None:
    with open_members(path) as members:
        data = checkpoint_skeleton(members, part(members))
    starts = record_starts(data)
    assert len(starts) == 2
    with Archive.of_bytes(data) as written:
        assert {written.start(name): name for name in starts.values()} == starts
        assert all(written.size(name) == 0 for name in starts.values())


def test_a_skeleton_loads_to_meta_with_its_sizes(path: Path) -> None:
    with open_members(path) as members:
        data = checkpoint_skeleton(members, part(members))
    loaded: Any = torch.load(io.BytesIO(data), map_location="meta", weights_only=True)
    assert loaded["a"].is_meta
    assert loaded["a"].shape == (2, 3)


def test_the_skeleton_of_a_whole_file_has_its_own_pickle(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(VALUE, path)
    with Archive(path) as archive, Archive.of_bytes(whole_skeleton(archive)) as written:
        assert written.read("data.pkl") == archive.read("data.pkl")
        assert ".storage_alignment" not in written.names
        records = {name for name in written.names if name.startswith("data/")}
        assert {written.size(name) for name in records} == {0}
        assert len(records) == 3
