"""Whether two tensors are close: what torch.testing.assert_close decides, which imports sympy and torch.distributed."""

from __future__ import annotations

import torch

# Relative and absolute, by dtype, as torch.testing documents them; tensors of other dtypes have to be the same.
_TOLERANCES = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex32: (1e-3, 1e-5),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}


def allclose(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether they have the same shape, dtype, device and layout, and values that differ by no more than rounding; NaN
    is close to NaN."""
    kinds = [(tensor.shape, tensor.dtype, tensor.device, tensor.layout) for tensor in (one, other)]
    if kinds[0] != kinds[1]:
        return False
    one, other = _plain(one), _plain(other)
    if one.dtype not in _TOLERANCES:
        return bool(torch.equal(one, other))
    relative, absolute = _TOLERANCES[one.dtype]
    if one.dtype is torch.complex32:
        one, other = one.to(torch.complex64), other.to(torch.complex64)
    return bool(torch.allclose(one, other, rtol=relative, atol=absolute, equal_nan=True))


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Its values as a dense tensor of a dtype that has arithmetic."""
    tensor = tensor.detach()
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return (
        tensor.float() if tensor.dtype.is_floating_point and tensor.dtype.itemsize == 1 else tensor
    )
