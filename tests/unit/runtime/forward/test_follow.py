"""Following slices: every claim on a random network is compared with changing its slices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import pytest
import torch
from torch import Tensor, nn

from composecli.core.blueprint import single_model
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.slices import AxisFate, Fate, Followed, fates
from composecli.runtime.forward.follow import follow
from composecli.runtime.forward.marked_forward import Slices
from composecli.runtime.model import Model
from composecli.runtime.tensors import Maker, Values
from composecli.workers.protocol import OpenRequest, Training

SIZES = (4, 5, 6)
WIDTH = SIZES[2]
VOCABULARY = 23
Op: TypeAlias = Callable[[], nn.Module]


class Function(nn.Module):
    """A function of one tensor as a module, with the layers that it uses."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def _of(function: Callable[..., Tensor], *layers: Callable[[], nn.Module]) -> Op:
    """Return a maker of the function with new layers."""
    return lambda: Function(function, *(layer() for layer in layers))


def _on_axes(function: Callable[[Tensor, int], Tensor]) -> list[Op]:
    """Return makers of the function along each axis."""
    return [_of(lambda x, dim=dim: function(x, dim)) for dim in range(3)]


def _shifted(x: Tensor, dim: int) -> Tensor:
    """Write each slice to the place of the next, as integers."""
    ids = (x * 4).long()
    target = torch.zeros_like(ids)
    size = ids.shape[dim]
    target.narrow(dim, 1, size - 1).copy_(ids.narrow(dim, 0, size - 1))
    return target.float()


def _counted(x: Tensor, dim: int) -> Tensor:
    """Count the positive elements so far."""
    positive = x.gt(0)
    return (positive.cumsum(dim) * positive).float()


def _best(x: Tensor, dim: int) -> Tensor:
    """Repeat the position of the largest element along an axis."""
    return x.argmax(dim, keepdim=True).expand(x.shape).float()


def _gathered(x: Tensor, dim: int) -> Tensor:
    """Take elements in the order of others."""
    return x.gather(dim, x.argsort(dim))


def _hot(x: Tensor, dim: int) -> Tensor:
    """Write ones where the largest elements are."""
    return torch.zeros_like(x).scatter(dim, x.argmax(dim, keepdim=True), 1.0) + x


OPS: tuple[Op, ...] = (
    lambda: nn.Linear(WIDTH, WIDTH),
    lambda: nn.LayerNorm(WIDTH),
    nn.ReLU,
    nn.GELU,
    lambda: nn.Dropout(0.3),
    lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8).eval(),
    lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True).eval(),
    lambda: nn.TransformerEncoderLayer(WIDTH, 2, 8, batch_first=True),
    _of(lambda x, rnn: rnn(x)[0], lambda: nn.LSTM(WIDTH, WIDTH)),
    _of(lambda x, rnn: rnn(x)[0], lambda: nn.GRU(WIDTH, WIDTH, batch_first=True)),
    _of(
        lambda x, conv: conv(x.transpose(1, 2)).transpose(1, 2),
        lambda: nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
    ),
    _of(
        lambda x, norm: norm(x.transpose(1, 2)).transpose(1, 2),
        lambda: nn.BatchNorm1d(WIDTH).eval(),
    ),
    _of(
        lambda x, norm: norm(x.transpose(1, 2)).transpose(1, 2),
        lambda: nn.InstanceNorm1d(WIDTH),
    ),
    _of(lambda x, table: table(x.argmax(-1)), lambda: nn.Embedding(64, WIDTH)),
    _of(lambda x: x.reshape(-1, WIDTH).relu().view(x.shape)),
    _of(lambda x: torch.where(x > 0, x, x.new_zeros(()))),
    _of(lambda x: x.masked_fill(x.gt(0.5), 0.0)),
    _of(lambda x: (x.softmax(-1) @ x.transpose(1, 2)) @ x),
    _of(lambda x: x.nan_to_num() * x.sign()),
    _of(lambda x: x.clamp(-1, 1).round()),
    _of(lambda x: x / (1 + x.abs().amax())),
    _of(lambda x: x - x[:1]),
    _of(lambda x: x[torch.arange(len(x)).flip(0)]),
    _of(lambda x: torch.eye(len(x)).tril().matmul(x.flatten(1)).view(x.shape)),
    *_on_axes(lambda x, dim: x.softmax(dim)),
    *_on_axes(lambda x, dim: x.cumsum(dim)),
    *_on_axes(lambda x, dim: x.sort(dim)[0]),
    *_on_axes(lambda x, dim: x.flip(dim)),
    *_on_axes(lambda x, dim: x - x.mean(dim, keepdim=True)),
    *_on_axes(lambda x, dim: x.cummax(dim)[0]),
    *_on_axes(_shifted),
    *_on_axes(_counted),
    *_on_axes(_best),
    *_on_axes(_gathered),
    *_on_axes(_hot),
)
# What ends a network: it may drop an axis, or move it.
ENDS: tuple[Op, ...] = (
    nn.Identity,
    _of(lambda x: x.transpose(0, 1)),
    _of(lambda x: x.permute(2, 0, 1)),
    _of(lambda x: x.flatten(0, 1)),
    _of(lambda x: x.flatten(1)),
    _of(lambda x: x.reshape(-1, 8)),
    *_on_axes(lambda x, dim: x.mean(dim)),
    *_on_axes(lambda x, dim: x.select(dim, -1)),
    *_on_axes(lambda x, dim: x.argmax(dim)),
    *_on_axes(lambda x, dim: x.max(dim)[0]),
)


def network(seed: int) -> tuple[nn.Module, TensorSpec]:
    """Return a random network, and the tensor that it takes."""
    chosen = random.Random(seed)
    torch.manual_seed(seed)
    layers = [chosen.choice(OPS)() for _ in range(chosen.randint(0, 3))]
    layers.append(chosen.choice(ENDS)())
    spec = TensorSpec("float32", SIZES)
    if chosen.random() < 0.4:
        layers.insert(0, nn.Embedding(VOCABULARY, WIDTH))
        spec = TensorSpec("int64", SIZES[:2], VOCABULARY)
    return nn.Sequential(*layers), spec


def followed(module: nn.Module, spec: TensorSpec, axis: int) -> Followed:
    """Follow the slices of one axis of the input of a module."""
    call = Call((Argument(spec),))
    slices = Slices(call, (((0,), axis),), spec.sizes[axis])

    def make(seed: int) -> Values:
        return Maker("cpu", seed, []).call(call)

    return follow(single_model(0), {0: as_model(module)}, slices, make, 0)


def as_model(module: nn.Module) -> Model:
    """Return a module as if it had been loaded."""
    reference = FileReference("network.pt")
    request = OpenRequest(reference, ModelKind.PICKLED, "cpu", Training.SAVED, True, None)
    return Model(module, request, (), {})


class Changed(NamedTuple):
    """Which elements of a result change with one slice of an axis, and with all others."""

    by_slice: Tensor
    by_others: Tensor


def changes(module: nn.Module, spec: TensorSpec, axis: int) -> list[Changed]:
    """Return for each slice of an axis what changes with it, and with all others together."""
    values = Maker("cpu", 0, []).call(Call((Argument(spec),))).positional[0]
    before = _run(module, values)
    changed = list[Changed]()
    for number in range(spec.sizes[axis]):
        found = Changed(_differ(before, before), _differ(before, before))
        for scale in (1.0, 100.0, -1.0, 0.0):
            other = _other(values, scale)
            mixed = values.clone()
            mixed.select(axis, number).copy_(other.select(axis, number))
            found.by_slice.logical_or_(_differ(before, _run(module, mixed)))
            other.select(axis, number).copy_(values.select(axis, number))
            found.by_others.logical_or_(_differ(before, _run(module, other)))
        changed.append(found)
    return changed


def _differ(one: Tensor, other: Tensor) -> Tensor:
    """Return where two results differ."""
    return (one != other) & ~(one.isnan() & other.isnan())


def _other(values: Tensor, scale: float) -> Tensor:
    """Return other values of the same kind."""
    if values.is_floating_point():
        return torch.randn(values.shape) * scale
    return torch.randint(0, VOCABULARY, values.shape)


def _run(module: nn.Module, values: Tensor) -> Tensor:
    """Run a module with the same random numbers each time."""
    with torch.no_grad():
        torch.manual_seed(0)
        result: Tensor = module(values)
    return result


def kept_on(changed: list[Changed], axis: int) -> bool:
    """Return whether each slice changes nothing but its own slice of an axis of the result."""
    if changed[0].by_slice.shape[axis] != len(changed):
        return False
    for number, found in enumerate(changed):
        elsewhere = found.by_slice.clone()
        elsewhere.select(axis, number).zero_()
        if elsewhere.any() or found.by_others.select(axis, number).any():
            return False
    return True


def is_wrong(fate: AxisFate, changed: list[Changed]) -> bool:
    """Return whether changed slices contradict a claim."""
    axes = range(changed[0].by_slice.dim())
    match fate.fate:
        case Fate.KEPT:
            return fate.axis is None or not kept_on(changed, fate.axis)
        case Fate.MIXED | Fate.LOST:
            return any(kept_on(changed, axis) for axis in axes)
        case Fate.UNTOUCHED:
            return any(bool(found.by_slice.any()) for found in changed)
        case Fate.UNKNOWN:
            return False


def judge(seed: int) -> list[Fate]:
    """Return what is claimed of the axes of a random network, which must not be wrong."""
    module, spec = network(seed)
    claims = list[Fate]()
    for axis in range(len(spec.sizes)):
        answer = followed(module, spec, axis)
        found = fates(answer)
        changed = changes(module, spec, axis)
        for fate in found:
            assert not is_wrong(fate, changed), (seed, axis, module, fate, answer)
            claims.append(fate.fate)
    return claims


@pytest.mark.parametrize("seed", range(20))
def test_no_claim_about_a_random_network_is_wrong(seed: int) -> None:
    judge(seed)


@pytest.mark.long
def test_no_claim_about_two_thousand_random_networks_is_wrong(
    record_property: Callable[[str, object], None],
) -> None:
    claims = Counter[str]()
    for seed in range(20, 2020):
        claims.update(map(str, judge(seed)))
    claims["random networks"] = 2000
    record_property("counts", dict(claims))


def test_one_forward_tells_that_slices_are_kept_apart() -> None:
    answer = followed(nn.Linear(WIDTH, 3), TensorSpec("float32", SIZES), 0)
    assert [fate.fate for fate in fates(answer)] == [Fate.KEPT]
    assert answer.forwards == 1


def test_a_product_with_zeros_is_not_taken_for_mixing() -> None:
    module = Function(lambda x: torch.eye(len(x)) @ x.flatten(1))
    (fate,) = fates(followed(module, TensorSpec("float32", SIZES), 0))
    assert fate.fate is Fate.UNKNOWN


def test_zero_weights_hide_nothing() -> None:
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GRU(WIDTH, 2, batch_first=True))
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    output, state = fates(followed(module, TensorSpec("float32", SIZES), 0))
    assert (output.fate, output.axis) == (Fate.KEPT, 0)
    assert (state.fate, state.axis) == (Fate.KEPT, 1)


def test_a_branch_on_values_is_not_believed_to_keep_slices_apart() -> None:
    module = Function(lambda x: x * 2 if x.sum() > 0 else x)
    answer = followed(module, TensorSpec("float32", SIZES), 0)
    assert answer.reads_values
    assert Fate.KEPT not in [fate.fate for fate in fates(answer)]


def test_an_op_without_a_rule_leaves_it_unknown() -> None:
    module = Function(lambda x: x.unique())
    answer = followed(module, TensorSpec("int64", SIZES[:2], VOCABULARY), 0)
    assert answer.opaque
    assert [fate.fate for fate in fates(answer)] == [Fate.UNKNOWN]
