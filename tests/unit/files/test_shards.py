"""Indexes of shards: which files they may name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from composecli.core.errors import Problem
from composecli.files.shards import NotAnIndex, is_index, read_index, shards_of
from composecli.files.sniff import WeightsFile, WeightsFormat, sniff


def index(folder: Path, content: Any) -> str:
    path = folder / "model.bin.index.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_tensors_are_listed_by_their_files(tmp_path: Path) -> None:
    for name in ("one.bin", "two.bin"):
        torch.save({"a": torch.ones(1)}, tmp_path / name)
    weight_map = {"a": "one.bin", "b": "two.bin", "c": "one.bin"}
    path = index(tmp_path, {"metadata": {"total_size": 12}, "weight_map": weight_map})
    assert is_index(Path(path).read_bytes())
    assert read_index(path) == {
        str(tmp_path / "one.bin"): ("a", "c"),
        str(tmp_path / "two.bin"): ("b",),
    }
    found = sniff(path)
    assert isinstance(found, WeightsFile)
    assert found.format is WeightsFormat.SHARDS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"weight_map": {"a": "../one.bin"}}, "not a file beside it"),
        ({"weight_map": {"a": "/etc/passwd"}}, "not a file beside it"),
        ({"weight_map": {"a": ".."}}, "not a file beside it"),
        ({"weight_map": {"a": 3}}, "not a file beside it"),
        ({"weight_map": {"a": "absent.bin"}}, "absent.bin is missing"),
        ({"weight_map": {"a": "a\0b"}}, "its file 'a.x00b' is missing"),
        ({"weight_map": {"a": "a" * 5000}}, "its file a{80} is missing"),
        ({"weight_map": {"a": "link"}}, "link is a link to gone.bin, which is missing"),
        ({"weight_map": {"a": "loop"}}, "loop is a link to loop, which is missing"),
        ({"weight_map": {"a": "folder"}}, "folder is not a regular file"),
        ({"weight_map": {}}, "names no files"),
        ({"weight_map": []}, "no weight_map"),
        ([{"weight_map": {}}], "no weight_map"),
    ],
)
def test_an_index_that_names_other_files_is_refused(
    tmp_path: Path, content: Any, words: str
) -> None:
    (tmp_path / "link").symlink_to("gone.bin")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotAnIndex, match=words):
        read_index(index(tmp_path, content))


def test_a_tensor_that_an_index_names_twice_is_refused(tmp_path: Path) -> None:
    names = ", ".join(f'"{number}": "one.bin"' for number in range(100_000))
    path = tmp_path / "index.json"
    path.write_text(f'{{"weight_map": {{{names}, "a": "one.bin", "a": "two.bin"}}}}')
    with pytest.raises(NotAnIndex, match="it has a twice"):
        read_index(str(path))


def test_the_files_of_what_is_no_index_are_none(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "one.bin")
    assert shards_of(str(tmp_path / "one.bin")) == ()
    assert shards_of(str(tmp_path / "absent.json")) == ()
    assert shards_of(index(tmp_path, {"weight_map": {"a": "absent.bin"}})) == ()
    found = shards_of(index(tmp_path, {"weight_map": {"a": "one.bin"}}))
    assert found == (str(tmp_path / "one.bin"),)


@pytest.mark.parametrize("data", [b'{"weight_map"', b'{"weight_map": ' + b"[" * 100_000])
def test_an_index_that_is_no_json_is_a_problem(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.bin.index.json"
    path.write_bytes(data)
    found = sniff(str(path))
    assert isinstance(found, Problem)
    assert found.code == "CC904"


def test_a_shard_must_hold_weights(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "one.bin")
    found = sniff(index(tmp_path, {"weight_map": {"a": "one.bin"}}))
    assert isinstance(found, Problem)
    assert found.where == str(tmp_path / "one.bin")


def test_an_index_that_names_itself_is_no_endless_search(tmp_path: Path) -> None:
    found = sniff(index(tmp_path, {"weight_map": {"a": "model.bin.index.json"}}))
    assert isinstance(found, Problem)
    assert "an index, not weights" in found.title
