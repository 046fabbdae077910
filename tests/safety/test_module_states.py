"""Pickled modules whose state would replace the code of their class, in every kind of file."""

from __future__ import annotations

import copyreg
import io
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional

from composecli.cli import main
from tests.safety.fixtures import exported, rewritten, saved

STATE = dict(nn.Linear(3, 2).__dict__)


class Posing:
    """An object that is pickled as a Linear with any state."""

    def __init__(self, state: object) -> None:
        self.state = state

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return nn.Linear

    def __reduce_ex__(self, _: object) -> tuple[object, ...]:
        return getattr(copyreg, "__newobj__"), (nn.Linear,), self.state  # noqa: B009


WITH_FORWARD = {**STATE, "forward": functional.relu}
STATES: dict[str, object] = {
    "a list of pairs": list(WITH_FORWARD.items()),
    "a tuple of pairs": tuple(WITH_FORWARD.items()),
    "two dicts": (STATE, {"forward": functional.relu}),
    "a dict that is an object": OrderedDict(WITH_FORWARD),
    "a forward": WITH_FORWARD,
    "a class": {**STATE, "__class__": nn.ReLU},
    "a dict of attributes": {**STATE, "__dict__": WITH_FORWARD},
    "a compiled call": {**STATE, "_compiled_call_impl": nn.ReLU()},
    "a function in place of a tensor": {**STATE, "bias": functional.relu},
    "a method of the class": {**STATE, "extra_repr": nn.ReLU()},
    "an attribute of the class": {**STATE, "_version": 3},
}
SAVE: dict[str, Callable[[object], bytes]] = {
    "a module": saved,
    "a checkpoint": lambda module: saved({"model": module, "epoch": 3}),
    "the old format": lambda module: saved(module, _use_new_zipfile_serialization=False),
    "a submodule": lambda module: saved(_sequential(module)),
}


def _sequential(module: object) -> nn.Module:
    outer = nn.Sequential(nn.Linear(3, 3))
    outer._modules["1"] = module
    return outer


def _inspect(path: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["inspect", str(path), *options], catch_exceptions=False)
    return result.exit_code, result.output


@pytest.mark.parametrize("saving", SAVE)
@pytest.mark.parametrize("name", STATES)
def test_a_state_that_replaces_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, saving: str
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    path = tmp_path / "model.pt"
    path.write_bytes(SAVE[saving](Posing(STATES[name])))
    exit_code, output = _inspect(path, "--isolation", "none")
    assert exit_code == 3, output
    # A state without the attributes of a module is that of another object.
    assert any(code in output for code in ("CC908", "CC909", "CC910")), output
    assert os.listdir(tmp_path) == ["model.pt"]


def test_torch_would_let_a_list_replace_the_forward() -> None:
    data = io.BytesIO(saved(Posing(STATES["a list of pairs"])))
    with torch.serialization.safe_globals([nn.Linear, functional.relu, set]):
        module = torch.load(data, weights_only=True)
    assert module.forward is functional.relu


def test_sample_inputs_of_an_export_are_data_in_their_records(tmp_path: Path) -> None:
    """PyTorch would unpickle them without restrictions if its restricted unpickler refused them."""
    short = rewritten(saved((torch.ones(4),)), {"/data/0": b"1234"})
    for inner in (saved((nn.Linear(3, 2),)), short):
        path = tmp_path / "model.pt2"
        path.write_bytes(rewritten(exported(), {"data/sample_inputs/model.pt": inner}))
        code, output = _inspect(path)
        assert code == 3
        assert "CC926" in output
