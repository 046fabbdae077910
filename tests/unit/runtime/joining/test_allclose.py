"""allclose decides like torch.testing.assert_close."""

from __future__ import annotations

import itertools

import pytest
import torch

from composecli.runtime.joining.allclose import allclose

DTYPES = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.complex64, torch.complex128, torch.int64, torch.uint8, torch.bool,
)  # fmt: skip
VALUES = (0.0, 1.0, 8.0, 300.0, float("nan"), float("inf"))
STEPS = (0.0, 1e-9, 1e-8, 1e-6, 5e-6, 1e-5, 1e-3, 1e-2, 1.0)


def is_close_in_torch(one: torch.Tensor, other: torch.Tensor) -> bool:
    try:
        torch.testing.assert_close(one, other, equal_nan=True)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (dtype, value)
        for dtype in DTYPES
        for value in VALUES
        if value < 9 or dtype.is_floating_point or dtype.is_complex
    ],
    ids=str,
)
def test_values_are_close_if_torch_says_so(dtype: torch.dtype, value: float) -> None:
    one = torch.tensor([1.0, value], dtype=torch.float64)
    for step in STEPS:
        other = torch.tensor([1.0, float(one[1]) + step], dtype=torch.float64)
        pair = one.to(dtype), other.to(dtype)
        assert allclose(*pair) == is_close_in_torch(*pair), step


@pytest.mark.filterwarnings("ignore:.*quant")
def test_tensors_of_other_kinds_are_never_close() -> None:
    dense = torch.eye(3)
    tensors = [dense, dense.double(), dense[:2], dense.to_sparse(), torch.empty(0), dense[0]]
    tensors += [torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8), dense.to("meta")]
    for one, other in itertools.permutations(tensors, 2):
        assert not allclose(one, other), (one, other)
    for one in tensors[:-1]:
        assert allclose(one, one.clone())
