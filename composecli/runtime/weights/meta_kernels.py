"""Meta kernels as strict as the real ones: the sizes, strides and dtype of what an op gives, without its arithmetic.

Each speaks only where the real kernel is sure to accept; where it does not speak, the real one runs, refuses in its own
words, or accepts what is unusual. That it says what the real kernel does is held by a differential test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# A tensor, a tuple of them, or None.
Result = Any
Kernel = Callable[..., Result]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
aten = torch.ops.aten


def plain(*tensors: Any) -> bool:
    """Whether all are dense tensors on the CPU, of one floating dtype, that hold something."""
    dtype = tensors[0].dtype
    if dtype not in _DTYPES:
        return False
    for tensor in tensors:
        if (
            not isinstance(tensor, torch.Tensor)
            or tensor.dtype is not dtype
            or tensor.layout is not torch.strided
        ):
            return False
        if not tensor.is_cpu or not tensor.numel() or tensor.is_neg():
            return False
    return True


def dense(*tensors: torch.Tensor) -> bool:
    """Whether they are plain and lie in memory row by row; `is_contiguous` asks nothing of axes of size 1."""
    if not plain(*tensors):
        return False
    return all(
        tensor.is_contiguous() and (1 not in tensor.shape or _row_by_row(tensor))
        for tensor in tensors
    )


def _row_by_row(tensor: torch.Tensor) -> bool:
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if stride != expected:
            return False
        expected *= size
    return True


def _given(*tensors: Any) -> list[Any]:
    return [tensor for tensor in tensors if tensor is not None]


def _fits(tensor: torch.Tensor, sizes: Sequence[int]) -> bool:
    """Whether it is broadcast to these sizes."""
    missing = len(sizes) - tensor.dim()
    return missing >= 0 and all(
        own in (1, size) for own, size in zip(tensor.shape, sizes[missing:], strict=True)
    )


def _mm(one: torch.Tensor, other: torch.Tensor) -> Result:
    if plain(one, other) and one.dim() == other.dim() == 2 and one.shape[1] == other.shape[0]:
        return one.new_empty((one.shape[0], other.shape[1]))
    return None


def _addmm(
    bias: torch.Tensor, one: torch.Tensor, other: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Result:
    result = _mm(one, other)
    fits = plain(bias, one) and isinstance(result, torch.Tensor) and _fits(bias, result.shape)
    return result if fits and beta == alpha == 1 else None


def _bmm(one: torch.Tensor, other: torch.Tensor) -> Result:
    if not plain(one, other) or one.dim() != 3 or other.dim() != 3:
        return None
    if one.shape[0] != other.shape[0] or one.shape[2] != other.shape[1]:
        return None
    return one.new_empty((one.shape[0], one.shape[1], other.shape[2]))


def _baddbmm(
    bias: torch.Tensor, one: torch.Tensor, other: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Result:
    result = _bmm(one, other)
    numbers = all(isinstance(number, int | float) for number in (beta, alpha))
    fits = plain(bias, one) and isinstance(result, torch.Tensor) and _fits(bias, result.shape)
    return result if fits and numbers else None


@dataclass(frozen=True, slots=True)
class _Windows:
    """How a convolution goes over its input, one number for each axis but the batch and the channels."""

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    output_padding: Sequence[int]

    def sizes(self, before: Sequence[int], kernel: Sequence[int]) -> list[int]:
        windows = zip(before, kernel, self.stride, self.padding, self.dilation, strict=True)
        return [
            (size + 2 * pad - gap * (window - 1) - 1) // step + 1
            for size, window, step, pad, gap in windows
        ]

    def transposed_sizes(self, before: Sequence[int], kernel: Sequence[int]) -> list[int]:
        """None where the padding of the output is not smaller than a stride or a dilation."""
        more = self.output_padding
        if len(more) != len(before) or min(more) < 0:
            return []
        if any(
            pad >= max(step, gap)
            for pad, step, gap in zip(more, self.stride, self.dilation, strict=True)
        ):
            return []
        windows = zip(before, kernel, self.stride, self.padding, self.dilation, more, strict=True)
        return [
            (size - 1) * step - 2 * pad + gap * (window - 1) + add + 1
            for size, window, step, pad, gap, add in windows
        ]


def _convolution(
    value: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *how: Any
) -> Result:
    """Output sizes as `torch.nn.Conv2d` and `torch.nn.ConvTranspose2d` document them."""
    stride, padding, dilation, transposed, output_padding, groups = how[:6]
    rank = value.dim() - 2
    given = _given(value, weight, bias)
    if not dense(*given) or rank not in (1, 2, 3) or weight.dim() != value.dim() or groups < 1:
        return None
    if not _whole(rank, stride, padding, dilation):
        return None
    into, out = (0, 1) if transposed else (1, 0)
    channels = weight.shape[out] * (groups if transposed else 1)
    if (
        value.shape[1] != weight.shape[into] * (1 if transposed else groups)
        or weight.shape[0] % groups
    ):
        return None
    if bias is not None and bias.shape != (channels,):
        return None
    windows = _Windows(stride, padding, dilation, output_padding)
    sizes = (windows.transposed_sizes if transposed else windows.sizes)(
        value.shape[2:], weight.shape[2:]
    )
    return value.new_empty((value.shape[0], channels, *sizes)) if sizes and min(sizes) > 0 else None


def _whole(
    rank: int, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> bool:
    same = len(stride) == len(padding) == len(dilation) == rank
    return same and min(stride) > 0 and min(padding) >= 0 and min(dilation) > 0


def _batch_norm(
    value: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    var: torch.Tensor | None,
    training: bool,  # noqa: FBT001
    *_: Any,
) -> Result:
    given = _given(weight, bias, mean, var)
    if training or mean is None or var is None or value.dim() < 2 or not dense(value, *given):
        return None
    if any(tensor.shape != (value.shape[1],) for tensor in given):
        return None
    return torch.empty_like(value), value.new_empty(0), value.new_empty(0)


def _batch_norm_in_eval(
    value: Any, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any
) -> Result:
    return _batch_norm(value, weight, bias, mean, var, False, *rest)


def _layer_norm(
    value: torch.Tensor,
    shape: Sequence[int],
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    _eps: float,
) -> Result:
    given = _given(value, weight, bias)
    count = len(shape)
    if (
        not dense(*given)
        or not 0 < count <= value.dim()
        or tuple(value.shape[-count:]) != tuple(shape)
    ):
        return None
    if any(tuple(tensor.shape) != tuple(shape) for tensor in given[1:]):
        return None
    outer = (*value.shape[:-count], *([1] * count))
    return torch.empty_like(value), value.new_empty(outer), value.new_empty(outer)


def _group_norm(
    value: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    count: int,
    channels: int,
    inner: int,
    groups: int,
    _eps: float,
) -> Result:
    given = _given(value, weight, bias)
    if not dense(*given) or groups < 1 or channels % groups or value.dim() < 2:
        return None
    if tuple(value.shape[:2]) != (count, channels) or value.numel() != count * channels * inner:
        return None
    if any(tensor.shape != (channels,) for tensor in given[1:]):
        return None
    return (
        torch.empty_like(value),
        value.new_empty((count, groups)),
        value.new_empty((count, groups)),
    )


def _like(value: torch.Tensor, *arguments: Any, **keywords: Any) -> Result:
    """Ops on each element that take any values and any numbers beside them."""
    numbers = all(
        isinstance(argument, int | float | None) for argument in (*arguments, *keywords.values())
    )
    return torch.empty_like(value) if dense(value) and numbers else None


def _gelu(value: torch.Tensor, *, approximate: str = "none") -> Result:
    return _like(value) if approximate in ("none", "tanh") else None


def _itself(value: torch.Tensor, *arguments: Any, **keywords: Any) -> Result:
    numbers = all(
        isinstance(argument, int | float | None) for argument in (*arguments, *keywords.values())
    )
    return value if dense(value) and numbers else None


def _both(one: torch.Tensor, other: Any, *, alpha: Any = 1) -> Result:
    """Ops on pairs of elements: of the same sizes, or one broadcast to the other."""
    if not isinstance(other, torch.Tensor):
        return _like(one, other)
    if not dense(one, other) or not isinstance(alpha, int):
        return None
    if one.shape == other.shape or (one.dim() and _fits(other, one.shape) and other.dim()):
        return torch.empty_like(one)
    return (
        torch.empty_like(other) if other.dim() and _fits(one, other.shape) and one.dim() else None
    )


def _to_itself(one: torch.Tensor, other: Any, *, alpha: Any = 1) -> Result:
    if not isinstance(other, torch.Tensor):
        return _itself(one, other)
    fits = dense(one, other) and _fits(other, one.shape)
    return one if fits and isinstance(alpha, int) else None


def _softmax(value: torch.Tensor, dim: int, to_float: bool) -> Result:  # noqa: FBT001
    fits = dense(value) and not to_float and -value.dim() <= dim < value.dim()
    return torch.empty_like(value) if fits else None


def _max_pool(
    value: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    up: bool = False,  # noqa: FBT001
) -> Result:
    """Output sizes as `torch.nn.MaxPool2d` documents them."""
    if not dense(value) or value.dim() != 4 or up:
        return None
    kernel, padding, dilation = (_pair(sizes) for sizes in (kernel, padding, dilation))
    stride = _pair(stride) if stride else kernel
    if not _whole(2, stride, padding, dilation) or any(
        2 * p > k for p, k in zip(padding, kernel, strict=True)
    ):
        return None
    sizes = _Windows(stride, padding, dilation, ()).sizes(value.shape[2:], kernel)
    if min(sizes) < 1 or min(kernel) < 1:
        return None
    shape = (*value.shape[:2], *sizes)
    return value.new_empty(shape), value.new_empty(shape, dtype=torch.int64)


def _pair(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sizes) * 2 if len(sizes) == 1 else tuple(sizes)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    dropout: float = 0.0,
    *_: Any,
    attn_mask: torch.Tensor | None = None,
    **_keywords: Any,
) -> Result:
    if not plain(query, key, value) or attn_mask is not None or dropout or query.dim() != 4:
        return None
    batch, heads, length, width = query.shape
    if (
        key.shape != value.shape
        or key.shape[:2] != (batch, heads)
        or key.shape[3] != width
        or key.dim() != 4
    ):
        return None
    if any(tensor.stride(3) != 1 for tensor in (query, key, value)):
        return None
    wide = torch.float32 if query.dtype in (torch.bfloat16, torch.float16) else query.dtype
    logs = query.new_empty((batch, length, heads), dtype=wide).transpose(1, 2)
    return torch.empty_like(query), logs


def _clone(value: torch.Tensor, *, memory_format: Any = None) -> Result:
    kept = memory_format in (None, torch.preserve_format)
    if not (dense(value) if kept else plain(value) and memory_format is torch.contiguous_format):
        return None
    return value.new_empty(value.shape)


def _cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> Result:
    if not tensors or not dense(*tensors):
        return None
    shape = list(tensors[0].shape)
    if not -len(shape) <= dim < len(shape):
        return None
    dim %= len(shape)
    others = [[*tensor.shape[:dim], *tensor.shape[dim + 1 :]] for tensor in tensors]
    if any(tensor.dim() != len(shape) for tensor in tensors) or any(
        other != others[0] for other in others
    ):
        return None
    shape[dim] = sum(tensor.shape[dim] for tensor in tensors)
    return tensors[0].new_empty(shape)


def _mean(
    value: torch.Tensor,
    dims: Sequence[int] | None,
    keep: bool = False,  # noqa: FBT001 (aten's signature)
    *,
    dtype: Any = None,
) -> Result:
    if (
        not dense(value)
        or not dims
        or dtype is not None
        or any(not -value.dim() <= dim < value.dim() for dim in dims)
    ):
        return None
    gone = {dim % value.dim() for dim in dims}
    if len(gone) != len(dims):
        return None
    kept = [
        (1 if axis in gone else size)
        for axis, size in enumerate(value.shape)
        if keep or axis not in gone
    ]
    return value.new_empty(kept)


_EACH = (
    aten.relu, aten.silu, aten.sigmoid, aten.tanh, aten.hardtanh, aten.hardswish, aten.hardsigmoid, aten.leaky_relu,
    aten.elu, aten.exp, aten.neg, aten.abs, aten.sqrt, aten.rsqrt, aten.erf, aten.mish, aten.sin, aten.cos,
)  # fmt: skip
_EACH_IN_PLACE = (
    aten.relu_, aten.silu_, aten.sigmoid_, aten.tanh_, aten.hardtanh_, aten.hardswish_, aten.hardsigmoid_,
    aten.leaky_relu_, aten.elu_,
)  # fmt: skip

KERNELS: dict[Any, Kernel] = {
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.bmm.default: _bmm,
    aten.baddbmm.default: _baddbmm,
    aten.convolution.default: _convolution,
    aten._convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten._native_batch_norm_legit_no_training.default: _batch_norm_in_eval,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_group_norm.default: _group_norm,
    aten.gelu.default: _gelu,
    aten._softmax.default: _softmax,
    aten._log_softmax.default: _softmax,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten.clone.default: _clone,
    aten.cat.default: _cat,
    aten.mean.dim: _mean,
    **{op.Tensor: _both for op in (aten.add, aten.sub, aten.mul, aten.div)},
    **{op.Tensor: _to_itself for op in (aten.add_, aten.sub_, aten.mul_, aten.div_)},
    **{op.default: _like for op in _EACH},
    **{op.default: _itself for op in _EACH_IN_PLACE},
}
