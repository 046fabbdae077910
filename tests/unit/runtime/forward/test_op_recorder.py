"""Recordings of forwards: the ops in which inputs meet parameters, and the op that failed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.observations import Operand, ParameterOp
from composecli.core.pytree import TensorSpec
from composecli.runtime.forward.op_recorder import MAX_PARAMETER_OPS, Recording, recording_ops
from tests.models import TwoInputs


def record(module: Any, *inputs: Any) -> Recording:
    with torch.no_grad(), recording_ops(module, list(inputs)) as recording:
        try:
            module(*inputs)
        except (RuntimeError, IndexError):
            assert recording.failure is not None
    return recording


def spec(*sizes: int, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(dtype, sizes)


@pytest.mark.parametrize(
    ("module", "x", "expected"),
    [
        (
            nn.Linear(10, 5),
            torch.rand(2, 10),
            ParameterOp("addmm", spec(2, 10), "weight", spec(10, 5), inputs=(0,)),
        ),
        (
            nn.Conv2d(4, 8, 3, groups=2),
            torch.rand(1, 4, 6, 6),
            ParameterOp(
                "convolution", spec(1, 4, 6, 6), "weight", spec(8, 2, 3, 3), 2, False, (0,)
            ),
        ),
        (
            nn.ConvTranspose1d(6, 2, 3, bias=False),
            torch.rand(1, 6, 5),
            ParameterOp("convolution", spec(1, 6, 5), "weight", spec(6, 2, 3), 1, True, (0,)),
        ),
        (
            nn.Embedding(7, 3),
            torch.tensor([[1, 2]]),
            ParameterOp(
                "embedding", TensorSpec("int64", (1, 2)), "weight", spec(7, 3), inputs=(0,)
            ),
        ),
        (
            nn.LayerNorm(6),
            torch.rand(2, 6),
            ParameterOp("layer_norm", spec(2, 6), "weight", spec(6), inputs=(0,)),
        ),
    ],
    ids=["linear", "grouped convolution", "transposed convolution", "embedding", "layer norm"],
)
@pytest.mark.parametrize("form", ["eager", "scripted"])
def test_an_op_on_an_input_and_a_parameter_is_recorded(
    module: nn.Module, x: torch.Tensor, expected: ParameterOp, form: str
) -> None:
    subject = torch.jit.script(module) if form == "scripted" else module
    recording = record(subject, x)
    assert recording.parameter_ops[0] == expected
    assert recording.failure is None


def test_each_value_knows_the_inputs_that_it_was_computed_from() -> None:
    recording = record(TwoInputs(), torch.rand(2, 5), torch.rand(2, 5))
    recorded = [(op.parameter, op.inputs) for op in recording.parameter_ops]
    assert recorded == [("left.weight", (0,)), ("right.weight", (1,))]


def test_the_weight_of_a_frozen_module_has_no_name() -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(10, 5)).eval()))
    first = record(frozen, torch.rand(2, 10)).parameter_ops[0]
    assert first.parameter == "a constant"
    assert first.weight == spec(10, 5)


def test_ops_between_parameters_are_not_recorded() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.weight = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (self.scale * self.weight)

    recording = record(Scaled(), torch.rand(2, 3))
    assert recording.parameter_ops == []
    assert recording.ops == 1


def test_long_forwards_are_recorded_up_to_a_limit() -> None:
    layers = nn.Sequential(*[nn.Linear(4, 4) for _ in range(MAX_PARAMETER_OPS + 3)])
    recording = record(layers, torch.rand(2, 4))
    assert len(recording.parameter_ops) == MAX_PARAMETER_OPS
    assert recording.ops > MAX_PARAMETER_OPS


@pytest.mark.parametrize("form", ["eager", "scripted"])
def test_a_failure_has_the_op_its_tensors_and_the_owner_of_its_parameter(form: str) -> None:
    module: Any = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Linear(10, 5)))
    if form == "scripted":
        module = torch.jit.script(module)
    recording = record(module, torch.rand(2, 9))
    failure = recording.failure
    assert failure is not None
    assert failure.op == "aten::addmm"
    assert recording.module == "1.0"
    assert Operand(spec(2, 9), (0,)) in failure.operands
    assert Operand(spec(10, 5), (), "1.0.weight") in failure.operands


def test_a_failure_without_parameters_is_in_the_submodule_that_was_running() -> None:
    class View(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(-1, 7)

    recording = record(nn.Sequential(nn.ReLU(), View()), torch.rand(2, 5))
    assert recording.failure is not None
    assert recording.failure.parameter is None
    assert recording.failure.numbers == (-1, 7)
    assert recording.module == "1"


def test_a_recording_leaves_no_hooks_behind() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    record(module, torch.rand(2, 4))
    record(module, torch.rand(2, 5))
    for submodule in module.modules():
        assert not submodule._forward_hooks
        assert not submodule._forward_pre_hooks


def test_weights_that_are_computed_count_as_weights() -> None:
    with warnings.catch_warnings(action="ignore"):
        module = nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))
    recording = record(module, torch.rand(3, 6))
    assert recording.parameter_ops[-1].weight == spec(6, 2)
