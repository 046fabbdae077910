"""Files of training code through the installed command: the old format, dicts, shards."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.checkpoints import LAYOUTS, NETWORKS, OLD_FORMAT, foreign_classes
from tests.commands.running import Composecli, Installed
from tests.safety.fixtures import Touch

CONTRACT = "contract: float32[N, 4] -> float32[N, 2]"
FACTORY = "from torch import nn\n\n\ndef make():\n    return nn.Sequential(nn.Linear(4, 2))\n"


def make() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a factory of the module that `make` makes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(FACTORY)
    return tmp_path


def weights_of(prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in make().state_dict().items()}


def test_weights_in_the_old_format_are_loaded(installed: Installed) -> None:
    torch.save(make().state_dict(), "weights.pth", **OLD_FORMAT)
    for options in ((), ("--trust", "weights.pth")):
        ran = installed("inspect", "net.py:make@weights.pth", *options)
        assert ran.code == 0, ran.err
        assert CONTRACT in ran.out


def test_a_module_in_the_old_format_is_loaded_and_joined(installed: Installed) -> None:
    torch.save(make(), "module.pt", **OLD_FORMAT)
    torch.save(nn.Linear(2, 3), "head.pt", **OLD_FORMAT)
    inspected = installed("inspect", "module.pt", "--trust", "module.pt")
    assert inspected.code == 0, inspected.err
    assert CONTRACT in inspected.out
    joined = installed("join", "module.pt", "head.pt", "-o", "both.pt")
    assert joined.code == 0, joined.err
    x = torch.rand(5, 4)
    module = torch.load("module.pt", weights_only=False)
    head = torch.load("head.pt", weights_only=False)
    assert torch.equal(torch.jit.load("both.pt")(x), head(module(x)))
    assert "was saved without checksums" in joined.out + joined.err


# A module that keeps an object of a class that is not torch's, and that object in a wrapper.
STATED = """
from torch import nn
class Stated(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2, bias=False)
    def forward(self, x):
        return self.layer(x)
    def get_extra_state(self):
        return None
    def set_extra_state(self, state):
        assert state.rate == 0.1
"""
STATE = {"module._extra_state": Namespace(rate=0.1)}


@pytest.mark.parametrize(
    ("layout", "note"),
    [
        ("a tensor beside the weights", "note: the weights are the entry model of the checkpoint"),
        ("averaged", "note: not weights, and left out: n_averaged"),
        ("compiled inside", "note: stripped from the names of the weights: _orig_mod."),
        ("an average beside it", "note: ema would fit, too: --key ema"),
        ("lightning with a loss", "note: not weights, and left out: criterion.weight"),
        ("deepspeed", "note: left out and never built: args (argparse.Namespace)"),
    ],
)
def test_the_report_says_what_was_chosen_and_stripped(
    installed: Installed, layout: str, note: str
) -> None:
    with foreign_classes() as (own, own_dict):
        torch.save(LAYOUTS[layout](make(), own, own_dict), "checkpoint.pt")
    ran = installed("inspect", "net.py:make@checkpoint.pt")
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out
    assert note in " ".join(ran.out.split())


def test_objects_beside_the_weights_are_never_built(installed: Installed, folder: Path) -> None:
    marker = folder / "marker"
    checkpoint = {"net": make().state_dict(), "touch": Touch(marker)}
    torch.save(checkpoint, "checkpoint.pt")
    ran = installed("inspect", "net.py:make@checkpoint.pt")
    assert ran.code == 0, ran.err
    assert "never built: touch" in ran.out
    assert not marker.exists()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_trust_changes_nothing_about_an_object_among_the_weights(
    installed: Installed, prefix: str
) -> None:
    weights = {prefix + name: value for name, value in make().state_dict().items()}
    torch.save({**weights, "args": Namespace(rate=0.1)}, "checkpoint.pt")
    ran = installed("inspect", "net.py:make@checkpoint.pt", "--trust", "checkpoint.pt")
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out
    assert "note: not weights, and left out: args" in ran.out


def test_a_trusted_extra_state_keeps_its_place_behind_a_wrapper(
    installed: Installed, folder: Path
) -> None:
    (folder / "stated.py").write_text(STATED)
    torch.save({"module.layer.weight": torch.rand(2, 4), **STATE}, "checkpoint.pt")
    words = ("stated.py:Stated@checkpoint.pt", "--trust", "checkpoint.pt")
    ran = installed("inspect", *words)
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out


@pytest.mark.parametrize("options", [(), ("--key", "model"), ("--trust", "best.pt")])
@pytest.mark.parametrize("old", [False, True])
def test_the_only_module_of_a_dict_is_taken(
    composecli: Composecli, options: tuple[str, ...], old: bool
) -> None:
    checkpoint = {"epoch": -1, "model": make(), "ema": None, "optimizer": None}
    torch.save(checkpoint, "best.pt", _use_new_zipfile_serialization=not old)
    ran = composecli("inspect", "best.pt", *options)
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out
    assert "note: the module is the entry model of the checkpoint" in ran.out


def test_the_module_of_a_training_script_is_taken_from_its_dict(installed: Installed) -> None:
    with foreign_classes() as (own, _):
        torch.save({"epoch": -1, "model": make(), "ema": None, "args": own()}, "best.pt")
    ran = installed("inspect", "best.pt")
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out
    assert "left out and never built: args" in ran.out


def test_one_of_several_modules_is_named_by_its_key(installed: Installed) -> None:
    """Each has its own answers, in the cache too."""
    torch.save({"model": make(), "ema": nn.Linear(3, 2)}, "best.pt")
    refused = installed("inspect", "best.pt")
    assert refused.code == 3
    assert "its modules: model, ema" in refused.err
    for _ in range(2):
        for key, width in (("model", 4), ("ema", 3)):
            ran = installed("inspect", "best.pt", "--key", key)
            assert ran.code == 0, ran.err
            assert f"contract: float32[N, {width}] -> float32[N, 2]" in ran.out
    absent = installed("inspect", "best.pt", "--key", "absent")
    assert absent.code == 3
    assert "no module at the key absent" in absent.err


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_read_by_their_index(installed: Installed, kind: str) -> None:
    weight_map = dict[str, str]()
    for number, (name, value) in enumerate(make().state_dict().items()):
        shard = f"model-{number + 1:05}-of-00002.{kind}"
        weight_map[name] = shard
        if kind == "bin":
            torch.save({name: value}, shard)
        else:
            save_file({name: value}, shard)
    index = {"metadata": {"total_size": 40}, "weight_map": weight_map}
    Path(f"model.{kind}.index.json").write_text(json.dumps(index))
    ran = installed("inspect", f"net.py:make@model.{kind}.index.json")
    assert ran.code == 0, ran.err
    assert CONTRACT in ran.out
    Path(weight_map["0.bias"]).unlink()
    missing = installed("inspect", f"net.py:make@model.{kind}.index.json")
    assert missing.code == 3
    assert f"its file {weight_map['0.bias']} is missing" in missing.err


def test_values_of_shards_reach_the_joined_file(composecli: Composecli) -> None:
    module = make()
    weights = module.state_dict()
    for name in weights:
        torch.save({"state_dict": {name: weights[name]}}, f"{name}.bin")
    weight_map = {name: f"{name}.bin" for name in weights}
    Path("index.json").write_text(json.dumps({"weight_map": weight_map}))
    torch.save(nn.Linear(2, 3), "head.pt")
    joined = composecli("join", "net.py:make@index.json", "head.pt", "-o", "both.pt")
    assert joined.code == 0, joined.err
    x = torch.rand(5, 4)
    head = torch.load("head.pt", weights_only=False)
    assert torch.equal(torch.jit.load("both.pt")(x), head(module(x)))


@pytest.mark.parametrize(
    ("checkpoint", "words", "key"),
    [
        (
            {"netG_A": weights_of(""), "netG_B": weights_of("")},
            "several entries of the checkpoint fit the module",
            "netG_A",
        ),
        (
            {"state_dict": {**weights_of("student."), **weights_of("teacher.")}},
            "--key state_dict.student takes the weights whose names start with student.",
            "state_dict.teacher",
        ),
        (
            {
                "state_dict": {
                    **weights_of("module.encoder_q."),
                    **weights_of("module.encoder_k."),
                    "module.queue": torch.ones(3, 2),
                }
            },
            "--key state_dict.module.encoder_q takes the weights whose names start with",
            "state_dict.module.encoder_q",
        ),
        (
            {"teacher": {**weights_of("module.backbone."), **weights_of("module.head.mlp.2.")}},
            "--key teacher.module.backbone takes the weights",
            "teacher.module.backbone",
        ),
        (
            {**weights_of("model."), "head.weight": torch.ones(2)},
            "--key model takes the weights whose names start with model.",
            "model",
        ),
    ],
)
def test_what_only_the_user_can_tell_is_asked_for(
    composecli: Composecli, checkpoint: dict[str, Any], words: str, key: str
) -> None:
    torch.save(checkpoint, "checkpoint.pt")
    refused = composecli("inspect", "net.py:make@checkpoint.pt")
    assert refused.code == 3
    assert words in " ".join(refused.err.split())
    assert composecli("inspect", "net.py:make@checkpoint.pt", "--key", key).code == 0


def test_weights_of_another_network_are_refused_in_every_layout(
    composecli: Composecli, folder: Path
) -> None:
    (folder / "networks.py").write_text(NETWORKS)
    for layout, checkpoint in LAYOUTS.items():
        with foreign_classes() as (own, own_dict):
            torch.save(checkpoint(make(), own, own_dict), "checkpoint.pt")
        refused = composecli("inspect", "networks.py:mlp@checkpoint.pt")
        assert refused.code == 3, layout
        assert "CC912" in refused.err, layout


@pytest.mark.parametrize(
    "name", ["score_scale", "step_size", "time_scale", "decay", "geometric.weight", "lossless"]
)
@pytest.mark.parametrize("lightning", [False, True])
def test_a_parameter_that_the_network_lacks_is_not_taken_for_training_state(
    name: str, lightning: bool, composecli: Composecli
) -> None:
    size = (2, 2) if "." in name else ()
    weights = {**make().state_dict(), name: torch.ones(size)}
    checkpoint: dict[str, Any] = weights
    if lightning:
        checkpoint = {"pytorch-lightning_version": "2.0", "state_dict": weights}
    torch.save(checkpoint, "more.pth")
    ran = composecli("inspect", "net.py:make@more.pth")
    assert ran.code == 3
    assert name in ran.err


def test_pipes_are_refused_in_place_of_shards_and_samples(installed: Installed) -> None:
    os.mkfifo("pipe")
    Path("model.index.json").write_text(json.dumps({"weight_map": {"0.weight": "pipe"}}))
    torch.save(make(), "module.pt")
    for words in (("net.py:make@model.index.json",), ("module.pt", "--input", "@pipe")):
        ran = installed("inspect", *words)
        assert ran.code == 3
        assert "not a regular file" in ran.err
