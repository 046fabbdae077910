"""The differential test of meta kernels.

If a meta kernel returns a result, the real one accepts the call, and its result has the same sizes,
strides, dtype and device.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from composecli.runtime.tensors import tensors_in
from composecli.runtime.weights.meta_kernels import KERNELS

aten = torch.ops.aten
SIZES = st.integers(1, 6)
DTYPES = st.sampled_from(
    [torch.float32, torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.int64]
)
NUMBERS = st.integers(0, 3)


@st.composite
def tensors(
    draw: Any, shape: tuple[int, ...] | None = None, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """A tensor of up to five axes, dense or not, of one of a few dtypes."""
    if shape is None:
        shape = tuple(draw(st.lists(SIZES, max_size=5)))
    dtype = dtype or draw(DTYPES)
    made = torch.randn([2 * size for size in shape]).abs().to(dtype)
    made = made[tuple(slice(0, size) for size in shape)]
    how = draw(
        st.sampled_from(
            ["dense", "dense", "dense", "strided", "reversed", "channels last", "expanded"]
        )
    )
    if how == "strided":
        return made
    if how == "reversed" and made.dim() > 1:
        return (
            made.permute(*reversed(range(made.dim())))
            .contiguous()
            .permute(*reversed(range(made.dim())))
        )
    if how == "channels last" and made.dim() == 4:
        return made.contiguous(memory_format=torch.channels_last)
    if how == "expanded" and made.dim():
        return made[:1].expand(shape)
    return made.contiguous()


def near(draw: Any, size: int) -> int:
    """Return the size that fits, in most cases."""
    return size if draw(st.integers(0, 5)) else draw(SIZES)


@st.composite
def products(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rows, inner, columns, batch = (draw(SIZES) for _ in range(4))
    batched = draw(st.booleans())
    one = (*((batch,) if batched else ()), rows, inner)
    other = (*((near(draw, batch),) if batched else ()), near(draw, inner), columns)
    bias = draw(
        st.sampled_from([(columns,), (1,), (rows, columns), (), (rows,), (batch, rows, columns)])
    )
    same = draw(DTYPES) if draw(st.booleans()) else None
    values = [draw(tensors(shape, same)) for shape in (bias, one, other)]
    return tuple(values), {}


@st.composite
def convolutions(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rank = draw(st.integers(1, 3))
    groups, transposed = draw(st.integers(1, 3)), draw(st.booleans())
    into, out = draw(st.integers(1, 3)) * groups, draw(st.integers(1, 3)) * groups
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    weight = (
        (into, out // groups, *kernel) if transposed else (out, near(draw, into // groups), *kernel)
    )
    value = (draw(SIZES), near(draw, into), *(draw(st.integers(1, 9)) for _ in range(rank)))
    same = draw(st.sampled_from([torch.float32, torch.float32, torch.float64, None]))
    bias = draw(tensors((near(draw, out),), same)) if draw(st.booleans()) else None
    lists = [
        [draw(numbers) for _ in range(rank)]
        for numbers in (st.integers(1, 3), NUMBERS, st.integers(1, 2))
    ]
    more = [draw(st.integers(0, 2)) for _ in range(rank)] if transposed else [0] * rank
    arguments = (
        draw(tensors(value, same)),
        draw(tensors(weight, same)),
        bias,
        *lists,
        transposed,
        more,
        groups,
    )
    return arguments, {}


@st.composite
def norms(draw: Any) -> tuple[torch.Tensor, tuple[Any, ...]]:
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
    same = draw(DTYPES) if draw(st.booleans()) else None
    return draw(tensors(shape, same)), (same, shape)


@st.composite
def batch_norms(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    value, (same, shape) = draw(norms())
    channels = near(draw, shape[1] if len(shape) > 1 else 1)
    given = [
        draw(tensors((channels,), same)) if draw(st.integers(0, 4)) else None for _ in range(4)
    ]
    return (value, *given, False, 0.1, 1e-5), {}


@st.composite
def batch_norms_in_eval(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (value, weight, bias, mean, var, *_), _ = draw(batch_norms())
    channels = value.shape[1] if value.dim() > 1 else 1
    mean, var = (
        torch.ones(channels, dtype=value.dtype) if item is None else item for item in (mean, var)
    )
    return (value, weight, bias, mean, var, 0.1, 1e-5), {}


@st.composite
def layer_norms(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    value, (same, shape) = draw(norms())
    inner = shape[draw(st.integers(0, len(shape) - 1)) :]
    inner = tuple(near(draw, size) for size in inner)
    given = [draw(tensors(inner, same)) if draw(st.booleans()) else None for _ in range(2)]
    return (value, list(inner), *given, 1e-5), {}


@st.composite
def group_norms(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    groups = draw(st.integers(1, 3))
    shape = (draw(SIZES), near(draw, groups * 2), draw(SIZES))
    same = draw(DTYPES) if draw(st.booleans()) else None
    given = [
        draw(tensors((near(draw, shape[1]),), same)) if draw(st.booleans()) else None
        for _ in range(2)
    ]
    return (
        draw(tensors(shape, same)),
        *given,
        shape[0],
        shape[1],
        near(draw, shape[2]),
        groups,
        1e-5,
    ), {}


@st.composite
def one_tensor(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (draw(tensors()),), {}


@st.composite
def pairs(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shape = tuple(draw(st.lists(SIZES, max_size=4)))
    other = tuple(1 if draw(st.integers(0, 3)) == 0 else near(draw, size) for size in shape)[
        draw(st.integers(0, 2)) :
    ]
    same = draw(DTYPES) if draw(st.booleans()) else None
    one, two = draw(tensors(shape, same)), draw(tensors(other, same))
    given: tuple[Any, ...] = (one, two) if draw(st.booleans()) else (two, one)
    return (given[0], draw(st.sampled_from([2, 0.5]))) if not draw(st.integers(0, 4)) else given, {}


@st.composite
def along(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (draw(tensors()), draw(st.integers(-6, 6)), draw(st.integers(0, 5)) == 0), {}


@st.composite
def means(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    dims = draw(st.lists(st.integers(-5, 5), max_size=3))
    return (draw(tensors()), dims, draw(st.booleans())), {}


@st.composite
def pools(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shape = tuple(draw(st.integers(1, 9)) for _ in range(4))
    lists = [
        draw(st.lists(numbers, min_size=1, max_size=2))
        for numbers in (st.integers(1, 4), st.integers(1, 3))
    ]
    more = [
        draw(st.lists(numbers, min_size=1, max_size=2))
        for numbers in (st.integers(0, 2), st.integers(1, 2))
    ]
    return (draw(tensors(shape)), *lists, *more, draw(st.integers(0, 4)) == 0), {}


@st.composite
def attentions(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    batch, heads, length, width = (draw(SIZES) for _ in range(4))
    same = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    keys = (near(draw, batch), near(draw, heads), draw(SIZES), near(draw, width))
    layout = draw(st.booleans())
    given = [torch.randn(shape).to(same) for shape in ((batch, heads, length, width), keys, keys)]
    if layout:
        given = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in given]
    return (*given, 0.0, draw(st.booleans())), {}


@st.composite
def copies(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    form = draw(
        st.sampled_from([None, torch.preserve_format, torch.contiguous_format, torch.channels_last])
    )
    return (draw(tensors()),), {"memory_format": form}


@st.composite
def joined(draw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=4)))
    same = draw(DTYPES) if draw(st.booleans()) else None
    dim = draw(st.integers(-5, 5))
    others = [tuple(near(draw, size) for size in shape) for _ in range(draw(st.integers(1, 3)))]
    return ([draw(tensors(other, same)) for other in others], dim), {}


ARGUMENTS: dict[str, Any] = {
    "mm": products().map(lambda given: (given[0][1:], {})),
    "addmm": products(),
    "bmm": products().map(lambda given: (given[0][1:], {})),
    "baddbmm": products(),
    "convolution": convolutions().map(lambda given: (given[0], {})),
    "_convolution": convolutions().map(lambda given: ((*given[0], False, False, True, True), {})),
    "native_batch_norm": batch_norms(),
    "_native_batch_norm_legit_no_training": batch_norms_in_eval(),
    "native_layer_norm": layer_norms(),
    "native_group_norm": group_norms(),
    "_softmax": along(),
    "_log_softmax": along(),
    "max_pool2d_with_indices": pools(),
    "_scaled_dot_product_flash_attention_for_cpu": attentions(),
    "clone": copies(),
    "cat": joined(),
    "mean": means(),
    **{name + end: pairs() for name in ("add", "sub", "mul", "div") for end in ("", "_")},
}


def name_of(op: Any) -> str:
    return str(op._schema.name.removeprefix("aten::"))


def layouts(result: Any) -> list[tuple[Any, ...]]:
    return [
        (tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        for tensor in tensors_in(result)
    ]


@pytest.mark.parametrize("op", list(KERNELS), ids=str)
def test_a_meta_kernel_agrees_with_the_real_one(op: Any) -> None:
    answered = list[bool]()

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(ARGUMENTS.get(name_of(op), one_tensor()))
    def holds(call: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        arguments, keywords = call
        predicted = KERNELS[op](*arguments, **keywords)
        answered.append(predicted is not None)
        if predicted is not None:
            # The real op may write to the predicted tensor.
            expected = layouts(predicted)
            assert layouts(op(*arguments, **keywords)) == expected

    holds()
    assert any(answered), "it never returned a result: nothing was compared"
