"""Integers that PyTorch takes for dtypes and memory formats, which it looks up without a check."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli
from tests.safety.dtype_modules import (
    Assigned,
    Attribute,
    Chosen,
    Computed,
    Constant,
    CopiedToNone,
    Forked,
    Given,
    GivenWild,
    Hooked,
    NotCopied,
    OfCaller,
    OfFunctional,
    OfList,
    OfTensors,
    Returned,
    ReturnedWild,
    Sparse,
    Summed,
    WildConstant,
    WildFormat,
    give_result,
)
from tests.safety.fixtures import exported, in_json, rewritten
from tests.safety.test_exported_threats import PROGRAM

HONEST = (
    Constant(),
    OfTensors(),
    OfFunctional(),
    Chosen(),
    Attribute(),
    Given(),
    Returned(),
    NotCopied(),
)
WILD = (
    WildConstant(), Computed(), Summed(), Attribute(200), Assigned(6), GivenWild(), ReturnedWild(),
    OfList(), OfCaller(), WildFormat(), Forked(), CopiedToNone(), Sparse(),
)  # fmt: skip


def scripted(folder: Path, module: nn.Module) -> Path:
    path = folder / "model.pt"
    torch.jit.save(torch.jit.script(module), path)
    return path


@pytest.mark.parametrize("module", HONEST, ids=lambda module: type(module).__name__)
def test_a_dtype_that_is_sure_to_be_one_is_no_reason_to_refuse(
    composecli: Composecli, tmp_path: Path, module: nn.Module
) -> None:
    ran = composecli("inspect", scripted(tmp_path, module), "--input", "float32[2, 3]")
    assert ran.code == 0, ran.out


@pytest.mark.parametrize("module", WILD, ids=lambda module: type(module).__name__)
def test_a_number_that_may_be_no_dtype_is_refused(
    composecli: Composecli, tmp_path: Path, module: nn.Module
) -> None:
    ran = composecli("inspect", scripted(tmp_path, module))
    assert ran.code == 3
    assert "CC926" in ran.err
    assert "may be given a number that is no" in " ".join(ran.err.split())


def test_hooks_get_what_forward_returns(composecli: Composecli, tmp_path: Path) -> None:
    """PyTorch calls them: what the code gives them is not all that they get."""
    module = Hooked()
    module.register_forward_hook(give_result)
    ran = composecli("inspect", scripted(tmp_path, module))
    assert "give_result may be given a number that is no" in " ".join(ran.err.split())


def of_zeros() -> bytes:
    """Return a .pt2 archive whose program makes zeros of a dtype."""
    data = io.BytesIO()
    program = torch.export.export(Constant(), (torch.rand(2, 3),))
    torch.export.save(program, data)
    return data.getvalue()


def with_dtype(argument: dict[str, Any]) -> bytes:
    """Return the archive with another dtype of its zeros."""

    def edit(program: dict[str, Any]) -> None:
        for node in program["graph_module"]["graph"]["nodes"]:
            for given in node["inputs"]:
                if "zeros" in node["target"] and given["name"] == "dtype":
                    given["arg"] = argument

    return rewritten(of_zeros(), {PROGRAM: in_json(edit)})


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        ({"as_scalar_type": 8}, 0),
        ({"as_int": 200}, 3),
        ({"as_int": 6}, 3),
        ({"as_scalar_type": 200}, 3),
        ({"as_sym_int": {"as_int": 200}}, 3),
    ],
)
def test_a_program_names_its_dtypes(
    composecli: Composecli, tmp_path: Path, argument: dict[str, Any], code: int
) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(with_dtype(argument))
    assert composecli("inspect", path).code == code


def test_a_program_as_it_was_written_is_not_refused(composecli: Composecli, tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(exported())
    assert composecli("inspect", path).code == 0
