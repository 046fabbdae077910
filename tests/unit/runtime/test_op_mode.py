"""Modes that see every op."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from composecli.runtime.op_mode import OpMode, op_name, tensor_arguments

aten = torch.ops.aten


class Listing(OpMode):
    """Lists the names of the ops that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(op_name(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", ["eager", "scripted", "traced", "exported"])
def test_ops_of_every_form_of_module_are_seen(form: str) -> None:
    module: Any = nn.Sequential(nn.Linear(4, 2), nn.ReLU()).eval()
    x = torch.rand(3, 4)
    forms = {
        "eager": lambda: module,
        "scripted": lambda: torch.jit.script(module),
        "traced": lambda: torch.jit.trace(module, x),
        "exported": lambda: torch.export.export(module, (x,)).module(),
    }
    model = forms[form]()
    with torch.no_grad(), Listing() as mode:
        model(x)
    assert [name for name in mode.names if name in ("addmm", "relu")] == ["addmm", "relu"]


def test_a_name_keeps_the_namespace_of_other_libraries() -> None:
    assert op_name(aten.add.Tensor) == "add"
    assert op_name(torch.ops.prims.sin.default) == "prims::sin"


def test_tensors_in_lists_and_keywords_are_arguments() -> None:
    one, two, three = torch.ones(1), torch.ones(2), torch.ones(3)
    assert tensor_arguments([[one, two], 1], {"out": three, "dim": 0}) == [one, two, three]
    assert tensor_arguments([one]) == [one]
