"""Meta kernels as strict as the real ones: sizes, strides and dtypes of a result, no arithmetic.

A kernel returns None unless the real one is certain to accept the call. The real one then runs, and
raises its own error or accepts the unusual call. A differential test compares every meta kernel
with the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor
from torch._ops import OpOverload

# Scalar and int[] of aten's schemas, and an op's result; None asks for the real kernel.
Number: TypeAlias = int | float | complex
Sizes: TypeAlias = Sequence[int]
Result: TypeAlias = Tensor | tuple[Tensor, ...] | None
Kernel: TypeAlias = Callable[..., Result]
_K = TypeVar("_K", bound=Kernel)

KERNELS: dict[OpOverload, Kernel] = {}
_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_HALF_DTYPES = (torch.bfloat16, torch.float16)
_ELEMENTWISE = (
    "relu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu",
    "exp", "neg", "abs", "sqrt", "rsqrt", "erf", "mish", "sin", "cos",
)  # fmt: skip
_ELEMENTWISE_IN_PLACE = (
    "relu_", "silu_", "sigmoid_", "tanh_", "hardtanh_", "hardswish_", "hardsigmoid_", "leaky_relu_",
    "elu_",
)  # fmt: skip
_BINARY = ("add", "sub", "mul", "div")
_BINARY_IN_PLACE = ("add_", "sub_", "mul_", "div_")
_aten = torch.ops.aten


def _kernel_of(overload: str, *names: str) -> Callable[[_K], _K]:
    """Register a meta kernel for this overload of each of these aten ops."""

    def register(kernel: _K) -> _K:
        for name in names:
            packet = getattr(_aten, name)
            KERNELS[getattr(packet, overload)] = kernel
        return kernel

    return register


def is_plain(*tensors: Tensor) -> bool:
    """Return whether all are non-empty strided CPU tensors of one floating dtype."""
    dtype = tensors[0].dtype
    if dtype not in _DTYPES:
        return False
    return all(_is_plain_of(dtype, tensor) for tensor in tensors)


def _is_plain_of(dtype: torch.dtype, tensor: Tensor) -> bool:
    """Return whether a tensor is plain and of this dtype."""
    if not isinstance(tensor, Tensor) or tensor.dtype is not dtype:
        return False
    if tensor.layout is not torch.strided or not tensor.is_cpu:
        return False
    return tensor.numel() > 0 and not tensor.is_neg()


def is_row_major(*tensors: Tensor) -> bool:
    """Return whether all are plain and have the strides that a new tensor of their sizes gets.

    `is_contiguous` alone does not suffice: it ignores the strides of axes of size 1.
    """
    if not is_plain(*tensors):
        return False
    for tensor in tensors:
        if not tensor.is_contiguous():
            return False
        if 1 in tensor.shape and not _has_row_major_strides(tensor):
            return False
    return True


def _has_row_major_strides(tensor: Tensor) -> bool:
    """Return whether each stride is the product of the sizes after its axis."""
    expected = 1
    axes = zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True)
    for size, stride in axes:
        if stride != expected:
            return False
        expected *= size
    return True


def _present(*tensors: Tensor | None) -> list[Tensor]:
    """Return the tensors among the arguments, without those that were left out."""
    return [tensor for tensor in tensors if tensor is not None]


def _are_numbers(*arguments: object) -> bool:
    """Return whether every argument is a number or was left out."""
    return all(isinstance(argument, int | float | None) for argument in arguments)


def _broadcasts_to(tensor: Tensor, sizes: Sizes) -> bool:
    """Return whether a tensor can be expanded to these sizes, the last axes aligned."""
    missing = len(sizes) - tensor.dim()
    if missing < 0:
        return False
    pairs = zip(tensor.shape, sizes[missing:], strict=True)
    return all(own in (1, size) for own, size in pairs)


@_kernel_of("default", "mm")
def _mm(one: Tensor, other: Tensor) -> Result:
    """Multiply matrices: (rows, inner) by (inner, columns)."""
    if not is_plain(one, other):
        return None
    if one.dim() != 2 or other.dim() != 2:
        return None
    rows, inner = one.shape
    other_inner, columns = other.shape
    if inner != other_inner:
        return None
    return one.new_empty((rows, columns))


@_kernel_of("default", "addmm")
def _addmm(
    bias: Tensor,
    one: Tensor,
    other: Tensor,
    *,
    beta: Number = 1,
    alpha: Number = 1,
) -> Result:
    """Add a bias to a product; factors other than 1 are left to the real kernel."""
    product = _mm(one, other)
    if not _can_be_added(bias, one, product):
        return None
    if beta != 1 or alpha != 1:
        return None
    return product


@_kernel_of("default", "bmm")
def _bmm(one: Tensor, other: Tensor) -> Result:
    """Multiply batches: (batch, rows, inner) by (batch, inner, columns)."""
    if not is_plain(one, other):
        return None
    if one.dim() != 3 or other.dim() != 3:
        return None
    batch, rows, inner = one.shape
    other_batch, other_inner, columns = other.shape
    if (other_batch, other_inner) != (batch, inner):
        return None
    return one.new_empty((batch, rows, columns))


@_kernel_of("default", "baddbmm")
def _baddbmm(
    bias: Tensor,
    one: Tensor,
    other: Tensor,
    *,
    beta: Number = 1,
    alpha: Number = 1,
) -> Result:
    """Add a bias to a product of batches; real factors do not affect the sizes."""
    product = _bmm(one, other)
    if not _can_be_added(bias, one, product):
        return None
    for factor in (beta, alpha):
        if not isinstance(factor, int | float):
            return None
    return product


def _can_be_added(bias: Tensor, factor: Tensor, product: Result) -> bool:
    """Return whether a bias can be added to the product of `factor` and another matrix."""
    if not isinstance(product, Tensor) or not is_plain(bias, factor):
        return False
    return _broadcasts_to(bias, product.shape)


@dataclass(frozen=True, slots=True)
class _Windows:
    """How a kernel slides over its input: one number for each axis except batch and channels."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    output_padding: Sizes = ()

    def are_valid(self, rank: int) -> bool:
        """Return whether there is a number for each of `rank` axes, within the allowed range."""
        if not len(self.stride) == len(self.padding) == len(self.dilation) == rank:
            return False
        if min(self.stride) < 1 or min(self.dilation) < 1:
            return False
        return min(self.padding) >= 0

    def output_sizes(self, sizes: Sizes, kernel: Sizes) -> list[int]:
        """Return the sizes after a convolution or pooling, as `torch.nn.Conv2d` documents them.

        Example: sizes (16, 16), kernel (3, 3), stride (2, 2), padding (1, 1) -> [8, 8].
        """
        result = list[int]()
        axes = zip(sizes, kernel, self.stride, self.padding, self.dilation, strict=True)
        for size, window, step, pad, gap in axes:
            extent = gap * (window - 1) + 1
            padded = size + 2 * pad
            steps = (padded - extent) // step
            result.append(steps + 1)
        return result

    def transposed_output_sizes(self, sizes: Sizes, kernel: Sizes) -> list[int]:
        """Return the sizes that `torch.nn.ConvTranspose2d` documents; empty if it would refuse.

        Each output padding has to be smaller than the stride or the dilation of its axis.
        Example: sizes (8, 8), kernel (2, 2), stride (2, 2) -> [16, 16].
        """
        more = self.output_padding
        if len(more) != len(sizes) or min(more) < 0:
            return []
        result = list[int]()
        axes = zip(sizes, kernel, self.stride, self.padding, self.dilation, more, strict=True)
        for size, window, step, pad, gap, extra in axes:
            if extra >= max(step, gap):
                return []
            extent = gap * (window - 1) + 1
            padded = (size - 1) * step + extent + extra
            result.append(padded - 2 * pad)
        return result


@_kernel_of("default", "convolution", "_convolution")
def _convolution(  # noqa: PLR0913, PLR0917 (aten's signature)
    value: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sizes,
    padding: Sizes,
    dilation: Sizes,
    transposed: bool,  # noqa: FBT001
    output_padding: Sizes,
    groups: int,
    *_backend_flags: bool,
) -> Result:
    """Convolve over one to three axes; a transposed weight has its input channels first."""
    rank = value.dim() - 2
    tensors = _present(value, weight, bias)
    if not is_row_major(*tensors) or rank not in (1, 2, 3):
        return None
    windows = _Windows(stride, padding, dilation, output_padding)
    if weight.dim() != value.dim() or groups < 1:
        return None
    if not windows.are_valid(rank):
        return None
    batch, channels, *spatial = value.shape
    first, second, *kernel = weight.shape
    if transposed:
        in_channels, out_channels = first, second * groups
        sizes = windows.transposed_output_sizes(spatial, kernel)
    else:
        in_channels, out_channels = second * groups, first
        sizes = windows.output_sizes(spatial, kernel)
    if channels != in_channels or first % groups:
        return None
    if bias is not None and bias.shape != (out_channels,):
        return None
    if not sizes or min(sizes) < 1:
        return None
    return value.new_empty((batch, out_channels, *sizes))


@_kernel_of("default", "native_batch_norm")
def _batch_norm(
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,  # noqa: FBT001 (aten's signature)
    _momentum: float,
    _eps: float,
) -> Result:
    """Normalize axis 1 by known statistics; the two saved statistics come back empty."""
    if training or mean is None or var is None:
        return None
    if value.dim() < 2:
        return None
    vectors = _present(weight, bias, mean, var)
    if not is_row_major(value, *vectors):
        return None
    channels = value.shape[1]
    for vector in vectors:
        if vector.shape != (channels,):
            return None
    result = torch.empty_like(value)
    return result, value.new_empty(0), value.new_empty(0)


@_kernel_of("default", "_native_batch_norm_legit_no_training")
def _batch_norm_in_eval(
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    momentum: float,
    eps: float,
) -> Result:
    """Normalize as `_batch_norm` does outside of training."""
    return _batch_norm(value, weight, bias, mean, var, False, momentum, eps)


@_kernel_of("default", "native_layer_norm")
def _layer_norm(
    value: Tensor,
    shape: Sizes,
    weight: Tensor | None,
    bias: Tensor | None,
    _eps: float,
) -> Result:
    """Normalize the last axes, which have size 1 in the two statistics."""
    affine = _present(weight, bias)
    count = len(shape)
    if not is_row_major(value, *affine):
        return None
    if not 0 < count <= value.dim():
        return None
    normalized = tuple(shape)
    if tuple(value.shape[-count:]) != normalized:
        return None
    for tensor in affine:
        if tuple(tensor.shape) != normalized:
            return None
    ones = [1] * count
    statistics = (*value.shape[:-count], *ones)
    result = torch.empty_like(value)
    return result, value.new_empty(statistics), value.new_empty(statistics)


@_kernel_of("default", "native_group_norm")
def _group_norm(
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    count: int,
    channels: int,
    inner: int,
    groups: int,
    _eps: float,
) -> Result:
    """Normalize groups of axis 1; the two statistics have the sizes (count, groups)."""
    affine = _present(weight, bias)
    if not is_row_major(value, *affine) or value.dim() < 2:
        return None
    if groups < 1 or channels % groups:
        return None
    if tuple(value.shape[:2]) != (count, channels):
        return None
    if value.numel() != count * channels * inner:
        return None
    for tensor in affine:
        if tensor.shape != (channels,):
            return None
    statistics = (count, groups)
    result = torch.empty_like(value)
    return result, value.new_empty(statistics), value.new_empty(statistics)


@_kernel_of("default", *_ELEMENTWISE)
def _elementwise(value: Tensor, *arguments: object, **keywords: object) -> Result:
    """Ops on each element that accept any values, with any numbers as further arguments."""
    if not is_row_major(value):
        return None
    if not _are_numbers(*arguments, *keywords.values()):
        return None
    return torch.empty_like(value)


@_kernel_of("default", *_ELEMENTWISE_IN_PLACE)
def _elementwise_in_place(value: Tensor, *arguments: object, **keywords: object) -> Result:
    """Return the argument itself, which these ops write to."""
    if not is_row_major(value):
        return None
    if not _are_numbers(*arguments, *keywords.values()):
        return None
    return value


@_kernel_of("default", "gelu")
def _gelu(value: Tensor, *, approximate: str = "none") -> Result:
    """Accept gelu without numbers, and with the name of an approximation."""
    if approximate not in ("none", "tanh"):
        return None
    return _elementwise(value)


@_kernel_of("Tensor", *_BINARY)
def _binary(one: Tensor, other: Tensor | Number, *, alpha: Number = 1) -> Result:
    """Ops on pairs of elements: of the same sizes, or one broadcast to the other."""
    if not isinstance(other, Tensor):
        return _elementwise(one, other)
    if not is_row_major(one, other) or not isinstance(alpha, int):
        return None
    if one.shape == other.shape:
        return torch.empty_like(one)
    if not one.dim() or not other.dim():
        return None
    if _broadcasts_to(other, one.shape):
        return torch.empty_like(one)
    if _broadcasts_to(one, other.shape):
        return torch.empty_like(other)
    return None


@_kernel_of("Tensor", *_BINARY_IN_PLACE)
def _binary_in_place(one: Tensor, other: Tensor | Number, *, alpha: Number = 1) -> Result:
    """Return the first tensor, to whose sizes the other one is broadcast."""
    if not isinstance(other, Tensor):
        return _elementwise_in_place(one, other)
    if not is_row_major(one, other) or not isinstance(alpha, int):
        return None
    if not _broadcasts_to(other, one.shape):
        return None
    return one


@_kernel_of("default", "_softmax", "_log_softmax")
def _softmax(value: Tensor, dim: int, half_to_float: bool) -> Result:  # noqa: FBT001
    """Keep the sizes; `half_to_float` is left to the real kernel."""
    if not is_row_major(value) or half_to_float:
        return None
    if not -value.dim() <= dim < value.dim():
        return None
    return torch.empty_like(value)


@_kernel_of("default", "max_pool2d_with_indices")
def _max_pool(
    value: Tensor,
    kernel: Sizes,
    stride: Sizes = (),
    padding: Sizes = (0,),
    dilation: Sizes = (1,),
    ceil_mode: bool = False,  # noqa: FBT001 (aten's signature)
) -> Result:
    """Return the maximum of each window, and its position as int64."""
    if not is_row_major(value) or value.dim() != 4 or ceil_mode:
        return None
    kernel = _pair(kernel)
    stride = _pair(stride or kernel)
    windows = _Windows(stride, _pair(padding), _pair(dilation))
    if not windows.are_valid(2):
        return None
    axes = zip(windows.padding, kernel, strict=True)
    for pad, window in axes:
        if 2 * pad > window:
            return None
    batch, channels, *spatial = value.shape
    sizes = windows.output_sizes(spatial, kernel)
    if min(sizes) < 1 or min(kernel) < 1:
        return None
    shape = (batch, channels, *sizes)
    result = value.new_empty(shape)
    indices = value.new_empty(shape, dtype=torch.int64)
    return result, indices


def _pair(sizes: Sizes) -> tuple[int, ...]:
    """Return one number for each of two axes: a single number is for both."""
    if len(sizes) == 1:
        return (sizes[0], sizes[0])
    return tuple(sizes)


@_kernel_of("default", "_scaled_dot_product_flash_attention_for_cpu")
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout: float = 0.0,
    _is_causal: bool = False,  # noqa: FBT001 (aten's signature)
    *,
    attn_mask: Tensor | None = None,
    **_scale: float | None,
) -> Result:
    """Return a result like the query, and the sum of each row: in float32 for half dtypes."""
    if not is_plain(query, key, value):
        return None
    if attn_mask is not None or dropout:
        return None
    if query.dim() != 4 or key.dim() != 4 or key.shape != value.shape:
        return None
    batch, heads, length, width = query.shape
    key_batch, key_heads, _, key_width = key.shape
    if (key_batch, key_heads, key_width) != (batch, heads, width):
        return None
    for tensor in (query, key, value):
        if tensor.stride(3) != 1:
            return None
    sum_dtype = query.dtype
    if sum_dtype in _HALF_DTYPES:
        sum_dtype = torch.float32
    log_sums = query.new_empty((batch, length, heads), dtype=sum_dtype)
    log_sums = log_sums.transpose(1, 2)
    return torch.empty_like(query), log_sums


@_kernel_of("default", "clone")
def _clone(value: Tensor, *, memory_format: torch.memory_format | None = None) -> Result:
    """Return a row-major copy; keeping other strides is left to the real kernel."""
    if memory_format in (None, torch.preserve_format):
        accepted = is_row_major(value)
    else:
        accepted = is_plain(value) and memory_format is torch.contiguous_format
    if not accepted:
        return None
    return value.new_empty(value.shape)


@_kernel_of("default", "cat")
def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Result:
    """Add up the sizes on axis `dim`; all other sizes have to be equal."""
    if not tensors or not is_row_major(*tensors):
        return None
    first = tensors[0]
    rank = first.dim()
    if not -rank <= dim < rank:
        return None
    dim %= rank
    other_sizes = _sizes_without(first, dim)
    for tensor in tensors:
        if tensor.dim() != rank:
            return None
        if _sizes_without(tensor, dim) != other_sizes:
            return None
    lengths = [tensor.shape[dim] for tensor in tensors]
    shape = list(first.shape)
    shape[dim] = sum(lengths)
    return first.new_empty(shape)


def _sizes_without(tensor: Tensor, dim: int) -> list[int]:
    """Return the sizes of a tensor except that of one axis."""
    sizes = list(tensor.shape)
    del sizes[dim]
    return sizes


@_kernel_of("dim", "mean")
def _mean(
    value: Tensor,
    dims: Sizes | None,
    keepdim: bool = False,  # noqa: FBT001 (aten's signature)
    *,
    dtype: torch.dtype | None = None,
) -> Result:
    """Drop the reduced axes, or keep them with size 1."""
    if not is_row_major(value) or not dims or dtype is not None:
        return None
    rank = value.dim()
    for dim in dims:
        if not -rank <= dim < rank:
            return None
    reduced = {dim % rank for dim in dims}
    if len(reduced) != len(dims):
        return None
    sizes = list[int]()
    for axis, size in enumerate(value.shape):
        if axis not in reduced:
            sizes.append(size)
        elif keepdim:
            sizes.append(1)
    return value.new_empty(sizes)
