"""Example inputs of an export may have the marks of sizes that change, and nothing else beside."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.decorators import mark_dynamic

from composecli.files.archive import Archive
from composecli.files.pickle import Global, parse
from composecli.files.safety.pt2_samples import unsafe_samples, without_marks
from tests.unit.files.archives import write_archive

NAME = "data/sample_inputs/model.pt"


class _Call:
    """Pickled as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def problems(folder: Path, value: object) -> list[str]:
    """Return the reasons not to load a value as example inputs."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with Archive(write_archive(folder / "model.pt2", {NAME: buffer.getvalue()})) as archive:
        return [reason.text for reason in unsafe_samples(archive, NAME)]


def marked(**attributes: object) -> Tensor:
    """Return a tensor with attributes."""
    tensor = torch.rand(4, 3)
    for name, value in attributes.items():
        setattr(tensor, name, value)
    return tensor


def _dynamic() -> Tensor:
    """Return an example as `torch.export` leaves it."""
    tensor = torch.rand(4, 3)
    mark_dynamic(tensor, 0)
    for name in list(vars(tensor)):
        if name.startswith(("_dynamo_dynamic", "_has")):
            delattr(tensor, name)
    return tensor


PLAIN: dict[str, Any] = {
    "no marks": lambda: torch.rand(4, 3),
    "marked by torch": _dynamic,
    "two axes": lambda: marked(_specialize_on={0: [], 1: []}),
    "marked and not": lambda: {"x": _dynamic(), "y": torch.rand(2)},
}


@pytest.mark.parametrize("case", PLAIN)
def test_marks_of_an_export_are_data(tmp_path: Path, case: str) -> None:
    assert problems(tmp_path, ((PLAIN[case](),), {})) == []


def _rebuilt(*arguments: object) -> Any:
    """Return a call that rebuilds a tensor from a function, a class, its arguments and marks."""
    return _Call(torch._tensor._rebuild_from_type_v2, *arguments)


def _arguments(sizes: tuple[int, ...] = (2,)) -> tuple[object, ...]:
    """Return what a tensor is rebuilt from."""
    storage = torch.zeros(4)._typed_storage()
    return (storage, 0, sizes, (1,), False, OrderedDict())


REBUILD = torch._utils._rebuild_tensor_v2
HOSTILE: dict[str, Any] = {
    "another attribute": lambda: marked(_specialize_on={0: []}, as_subclass=1),
    "a full list": lambda: marked(_specialize_on={0: ["x"]}),
    "a class as a mark": lambda: marked(_specialize_on=nn.Linear),
    "an axis that is a text": lambda: marked(_specialize_on={"x": []}),
    "another function": lambda: _rebuilt(nn.Linear, Tensor, (3, 2), {}),
    "a function of files": lambda: _rebuilt(torch.load, Tensor, ("x",), {}),
    "another class": lambda: _rebuilt(REBUILD, nn.Linear, _arguments(), {}),
    "state in slots": lambda: _rebuilt(REBUILD, Tensor, _arguments(), ({}, {})),
    "a nested call": lambda: _rebuilt(
        torch._tensor._rebuild_from_type_v2, Tensor, (REBUILD, Tensor, _arguments(), {}), {}
    ),
    "a call of the class": lambda: _Call(Tensor, 2**40),
    "too many elements": lambda: _rebuilt(REBUILD, Tensor, _arguments((5,)), {}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_anything_else_is_refused(tmp_path: Path, case: str) -> None:
    assert problems(tmp_path, ((HOSTILE[case](),), {}))


@pytest.mark.parametrize("key", [b"]", b"}", b"(]t", b"ctorch\nTensor\n)R"])
def test_marks_with_keys_that_no_dict_can_have_are_none(key: bytes) -> None:
    rebuild = b"ctorch._tensor\n_rebuild_from_type_v2\n"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(t"
    parsed = parse(b"\x80\x02" + rebuild + b"(" + tensor + b"}" + key + b"K\x01stR.")
    assert Global("torch._tensor", "_rebuild_from_type_v2") in without_marks(parsed).imports
