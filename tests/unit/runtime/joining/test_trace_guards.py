"""A trace refuses inputs for which its numbers and branches are others, however long it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from composecli.runtime.joining.trace_guards import Guarding

Forward = Callable[[torch.Tensor], torch.Tensor]


class Module(nn.Module):
    """Runs a function on its input and one parameter."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(1))
        self._function = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._function(x) * self.scale


def far_from_its_size(x: torch.Tensor) -> torch.Tensor:
    size: Any = x.shape[0]
    for _ in range(1_500):
        size = size + 1
    if size > 1_510:
        return x * 2
    return x


def with_many_branches(x: torch.Tensor) -> torch.Tensor:
    for _ in range(40):
        if x.shape[0] > 10:
            x = x * 2
        x = x + 1
    return x


def taken_apart_by_name(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([row + 1 for row in torch.unbind(input=x, dim=0)])


def traced(function: Forward) -> Any:
    module = Module(function)
    with Guarding():
        return torch.jit.trace(module, (torch.rand(3, 4),), check_trace=False)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (far_from_its_size, "takes one branch by a size"),
        (with_many_branches, "takes one branch by a size"),
        (taken_apart_by_name, "takes a tensor apart into 3"),
    ],
)
def test_another_size_is_refused(function: Forward, words: str) -> None:
    script = traced(function)
    assert script(torch.rand(3, 4)).shape == (3, 4)
    with pytest.raises(torch.jit.Error, match=words):
        script(torch.rand(12, 4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (lambda x: int(x.shape[1]) + int(x.sum().long()), "a value"),
        (lambda x: int((x.sum().long() + x.shape[0]) * 1), "a value"),
        (lambda x: int(x[x > 2].shape[0]), "a size"),
    ],
)
def test_a_guard_names_the_part_of_the_input(
    number: Callable[[torch.Tensor], int], words: str
) -> None:
    graph = str(traced(lambda x: x * number(x)).inlined_graph)
    assert f"turns {words} into the number" in graph


@pytest.mark.filterwarnings("ignore")
def test_a_number_of_the_weights_has_no_guard() -> None:
    weights = torch.ones(3)
    graph = str(traced(lambda x: x * int(weights.sum().long())).inlined_graph)
    assert "fixed in the file" not in graph
