"""Contracts of random networks hold at untried sizes, and verdicts agree with real runs."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from composecli import Verdict, check, join
from composecli.core.contract import Contract
from composecli.core.dims import Free, Shape, as_expr
from composecli.core.pytree import TensorSpec
from composecli.core.size_expr import evaluate
from tests.parsing import spec

WIDTHS = st.sampled_from([3, 4, 5])
BETWEEN = st.sampled_from(["relu", "tanh", "dropout", "layer_norm", "batch_norm"])


def _between(name: str, width: int) -> nn.Module:
    return {
        "relu": nn.ReLU(),
        "tanh": nn.Tanh(),
        "dropout": nn.Dropout(0.3),
        "layer_norm": nn.LayerNorm(width),
        "batch_norm": nn.BatchNorm1d(width),
    }[name]


def mlp(before: int, after: int, between: str) -> nn.Module:
    return nn.Sequential(nn.Linear(before, 8), _between(between, 8), nn.Linear(8, after))


def conv(before: int, after: int, kernel: int, stride: int, padding: int, pool: bool) -> nn.Module:
    layer = nn.Conv2d(before, after, kernel, stride=stride, padding=padding)
    return nn.Sequential(layer, nn.MaxPool2d(2) if pool else nn.ReLU())


def head(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, after))


CONVS = st.tuples(
    st.sampled_from([1, 3, 5]), st.sampled_from([1, 2]), st.sampled_from([0, 1]), st.booleans()
)
PRODUCERS: st.SearchStrategy[nn.Module] = st.one_of(
    st.builds(mlp, st.sampled_from([4, 6]), WIDTHS, BETWEEN),
    st.builds(lambda after, shape: conv(3, after, *shape), WIDTHS, CONVS),
    st.builds(lambda after: nn.Embedding(30, after), WIDTHS),
    st.builds(lambda after: nn.Conv1d(4, after, 3), WIDTHS),
    st.builds(
        lambda after, shape: nn.Sequential(conv(3, 6, *shape), head(6, after)), WIDTHS, CONVS
    ),
)
CONSUMERS: st.SearchStrategy[nn.Module] = st.one_of(
    st.builds(mlp, WIDTHS, st.just(2), BETWEEN),
    st.builds(lambda before, shape: conv(before, 4, *shape), WIDTHS, CONVS),
    st.builds(head, WIDTHS, st.just(3)),
    st.sampled_from([nn.ReLU(), nn.Softmax(1), nn.Sequential(nn.Flatten(), nn.ReLU())]),
)


@settings(max_examples=40)
@given(PRODUCERS, CONSUMERS, st.booleans(), st.booleans(), st.integers(0, 40))
def test_contract_verdict_and_join_agree_with_running(
    one: nn.Module, other: nn.Module, training: bool, scripted: bool, larger: int
) -> None:
    one.train(training)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        paths = [Path(folder) / "a.pt", Path(folder) / "b.pt"]
        for module, path in zip((one, other), paths, strict=True):
            torch.jit.script(module).save(str(path)) if scripted else torch.save(module, path)
        report = check(*paths)
        contract = report.models[0].contract
        assert contract is not None
        _holds_at(contract, one, larger)
        runs = _runs(_load(paths[0]), _load(paths[1]), report.example)
        assert (report.verdict is Verdict.COMPATIBLE) == runs
        assert report.verdict is not Verdict.UNKNOWN
        joined = join(*paths, output=Path(folder) / "both.pt", bridge="linear")
        assert joined.written is not None or report.verdict is Verdict.INCOMPATIBLE


def _load(path: Path) -> Any:
    try:
        return torch.jit.load(str(path))
    except RuntimeError:
        return torch.load(path, weights_only=False)


def _runs(one: Any, other: Any, example: str | None) -> bool:
    """Return whether the pair runs on the example that the verdict speaks for."""
    assert example is not None
    inputs = [_zeros(spec(text)) for text in example.replace("], ", "]; ").split("; ")]
    with torch.no_grad():
        given_tensor = one(*inputs)
        try:
            other(given_tensor)
        except Exception:
            return False
    return True


def _zeros(tensor: TensorSpec) -> torch.Tensor:
    return torch.zeros(tensor.sizes, dtype=getattr(torch, tensor.dtype))


def _holds_at(contract: Contract, module: nn.Module, larger: int) -> None:
    """Check that the contract predicts the output sizes at an input that was not probed."""
    dims: Shape = contract.inputs[0].dims or ()
    sizes = {
        dim.name: min(dim.low + larger, dim.high or 1000) for dim in dims if isinstance(dim, Free)
    }
    wanted = [as_expr(dim) for dim in dims]
    assert None not in wanted
    given_sizes = tuple(evaluate(expr, sizes) for expr in wanted if expr is not None)
    with torch.no_grad():
        result = module(_zeros(TensorSpec(contract.inputs[0].dtype, given_sizes)))
    for dim, size in zip(contract.outputs[0].dims or (), result.shape, strict=True):
        expr = as_expr(dim)
        assert expr is None or evaluate(expr, sizes) == size, str(contract)
