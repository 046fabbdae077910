"""Weights in shards: trust in their index, and what an index may say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.commands.running import Installed

CONTRACT = "contract: float32[N, 4] -> float32[N, 2]"
FACTORY = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 2))\n"


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def folder(here: Path) -> Path:
    """The working directory, with a factory of the module that `make` makes."""
    (here / "net.py").write_text(FACTORY)
    return here


def sharded(kind: str = "bin") -> tuple[str, ...]:
    """Save the weights in two shards. Return their names; the index is `index.json`."""
    weight_map = dict[str, str]()
    for name, value in make().state_dict().items():
        weight_map[name] = f"{name}.{kind}"
        torch.save({name: value}, weight_map[name])
        if kind == "safetensors":
            save_file({name: value}, weight_map[name])
    Path("index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tuple(weight_map.values())


def pinned(path: str) -> tuple[str, str]:
    """Return the option that trusts a file with its content."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return "--trust", f"{path}@sha256:{digest}"


def test_trust_in_an_index_covers_its_shards(installed: Installed) -> None:
    sharded()
    ran = installed("inspect", "net.py:make@index.json", "--trust", "index.json")
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_pinned_index_needs_the_hash_of_every_shard(installed: Installed, kind: str) -> None:
    first, second = sharded(kind)
    words = ["inspect", "net.py:make@index.json", *pinned("index.json"), *pinned(first)]
    incomplete = installed(*words)
    assert incomplete.code == 3
    assert "error[CC929]: the index is pinned, and 1 of the files" in incomplete.err
    assert f"without a hash: {second}" in incomplete.err
    words += pinned(second)
    assert CONTRACT in installed(*words).out
    Path(second).write_bytes(Path(second).read_bytes()[:-1] + b"?")
    changed = installed(*words)
    assert changed.code == 3
    assert "error[CC929]: the file is not the one that is trusted" in changed.err
    assert second in changed.err


def test_a_pinned_index_that_changed_is_refused(installed: Installed) -> None:
    shards = sharded()
    words = ["inspect", "net.py:make@index.json", *pinned("index.json")]
    for shard in shards:
        words += pinned(shard)
    Path("index.json").write_text(Path("index.json").read_text() + " ")
    assert "error[CC929]: the file is not the one that is trusted" in installed(*words).err


def test_the_shards_of_an_index_that_is_not_trusted_cannot_be(installed: Installed) -> None:
    shard, _ = sharded()
    ran = installed("inspect", "net.py:make@index.json", "--trust", shard)
    assert ran.code == 2
    assert f"{shard} is not one of the models" in ran.err


def test_a_shard_may_be_a_link_and_hold_what_another_one_holds(installed: Installed) -> None:
    first, second = sharded()
    Path("blobs").mkdir()
    Path(first).rename("blobs/0123")
    Path(first).symlink_to("blobs/0123")
    torch.save(dict(make().state_dict()), second)
    ran = installed("inspect", "net.py:make@index.json")
    assert ran.code == 0, ran.err
    assert "not in the file where the index places them, and left out: 0.weight" in ran.out
