"""Whether two tensors are close, as torch.testing.assert_close decides.

That function is not used, because it imports sympy and torch.distributed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class _Tolerance(NamedTuple):
    """The differences that count as rounding: `relative` to the value, plus `absolute`."""

    relative: float
    absolute: float


# As torch.testing documents them. Tensors of other dtypes must be equal.
_TOLERANCES = {
    torch.float16: _Tolerance(1e-3, 1e-5),
    torch.bfloat16: _Tolerance(1.6e-2, 1e-5),
    torch.float32: _Tolerance(1.3e-6, 1e-5),
    torch.float64: _Tolerance(1e-7, 1e-7),
    torch.complex32: _Tolerance(1e-3, 1e-5),
    torch.complex64: _Tolerance(1.3e-6, 1e-5),
    torch.complex128: _Tolerance(1e-7, 1e-7),
}


def allclose(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two tensors have the same metadata, and values that differ by rounding only.

    The metadata are shape, dtype, device and layout. NaN is close to NaN.
    """
    if _metadata(one) != _metadata(other):
        return False
    one = _as_dense(one)
    other = _as_dense(other)
    tolerance = _TOLERANCES.get(one.dtype)
    if tolerance is None:
        return bool(torch.equal(one, other))
    if one.dtype is torch.complex32:
        one = one.to(torch.complex64)
        other = other.to(torch.complex64)
    relative, absolute = tolerance
    is_close = torch.allclose(one, other, rtol=relative, atol=absolute, equal_nan=True)
    return bool(is_close)


def _metadata(tensor: torch.Tensor) -> tuple[torch.Size, torch.dtype, torch.device, torch.layout]:
    """Return the properties of a tensor that must be equal."""
    return tensor.shape, tensor.dtype, tensor.device, tensor.layout


def _as_dense(tensor: torch.Tensor) -> torch.Tensor:
    """Return the values as a dense tensor of a dtype that has arithmetic."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    dtype = tensor.dtype
    if dtype.is_floating_point and dtype.itemsize == 1:
        return tensor.float()
    return tensor
