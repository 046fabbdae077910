"""One forward with gradients: what autograd computes, and models that are left as they were."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.joining.factored_gradients import crc
from composecli.runtime.joining.gradients import MAX_KEPT_GRADIENT_BYTES, Digest, GradientRun
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest, Training
from tests.models import Argmax, Counter, Tied, TwoOutputs

REQUEST = OpenRequest(
    FileReference("-"), ModelKind.PICKLED, "cpu", Training.SAVED, trusted=False, key=None
)


def run_of(module: nn.Module, *values: torch.Tensor, gradients: bool = True) -> GradientRun:
    parameters = dict(module.named_parameters(remove_duplicate=False))
    model = Model(module, REQUEST, (), {})
    return GradientRun([model], lambda: module(*values), parameters, 0, gradients)


def expected(module: nn.Module, *values: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradients of the same random combination of the outputs, by autograd alone."""
    outputs = module(*values)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros(())
    for output in outputs:
        loss = loss + (output * torch.randn(output.shape, generator=generator)).sum().abs()
    named = dict(module.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


@pytest.mark.parametrize(
    ("module", "size"), [(nn.Linear(5, 3), 5), (TwoOutputs(), 10), (nn.LayerNorm(5), 5)]
)
def test_gradients_are_those_of_autograd(module: nn.Module, size: int) -> None:
    x = torch.randn(2, size)
    result = run_of(module, x).run()
    reference = expected(module, x)
    assert result.gradients.keys() == reference.keys()
    assert all(torch.equal(result.gradients[name], reference[name]) for name in reference)


def test_the_result_is_described_and_detached() -> None:
    result = run_of(TwoOutputs(), torch.randn(2, 10)).run()
    assert result.result == "float32[2, 5], float32[2, 5]"
    assert not any(output.requires_grad for output in result.outputs)


def test_names_of_one_parameter_have_one_gradient() -> None:
    gradients = run_of(Tied(), torch.randn(2, 5)).run().gradients
    assert gradients["one.weight"] is gradients["other.weight"]
    assert gradients["one.weight"].any()


def test_a_parameter_without_a_gradient_is_none_and_a_frozen_one_is_not_listed() -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2))
    module.register_parameter("unused", nn.Parameter(torch.ones(2)))
    module[0].bias.requires_grad_(False)
    gradients = run_of(module, torch.randn(2, 5)).run().gradients
    assert gradients["unused"] is None
    assert "0.bias" not in gradients
    assert gradients["0.weight"] is not None


def test_outputs_without_a_gradient_give_none_for_every_parameter() -> None:
    module = nn.Sequential(nn.Linear(5, 5), Argmax())
    gradients = run_of(module, torch.randn(2, 5)).run().gradients
    assert gradients == {"0.weight": None, "0.bias": None}


def test_no_gradients_are_computed_unless_requested() -> None:
    result = run_of(nn.Linear(5, 3), torch.randn(2, 5), gradients=False).run()
    assert result.gradients == {}
    assert result.outputs[0].shape == (2, 3)


def test_gradients_and_state_are_left_as_they_were() -> None:
    module = Counter()
    module.fc.weight.grad = torch.full_like(module.fc.weight, 7.0)
    run = run_of(module, torch.randn(2, 10))
    first, second = run.run(), run.run()
    assert torch.equal(first.outputs[0], second.outputs[0])
    assert module.calls == 0
    assert module.seen == 0
    assert module.fc.weight.grad.eq(7).all()
    assert module.fc.bias.grad is None


def test_a_large_gradient_is_digested_unless_it_is_to_be_kept() -> None:
    width = MAX_KEPT_GRADIENT_BYTES // 4 + 1
    run = run_of(nn.LayerNorm(width), torch.randn(2, width))
    digests = run.run().gradients
    kept = replace(run, kept=frozenset({"weight"})).run().gradients
    assert isinstance(digests["weight"], Digest)
    assert isinstance(kept["weight"], torch.Tensor)
    assert digests["weight"] == Digest(kept["weight"].shape, (crc(kept["weight"]),))
    assert isinstance(kept["bias"], Digest)


def test_a_large_matrix_is_digested_by_its_factors_unless_it_is_used_twice() -> None:
    layer, x = nn.Linear(300, 300, bias=False), torch.randn(2, 300)
    once = run_of(nn.Sequential(layer), x).run().gradients["0.weight"]
    twice = run_of(nn.Sequential(layer, layer), x).run().gradients["0.weight"]
    assert len(once.crcs) == 2
    assert len(twice.crcs) == 1
