"""Gradients in factored form: large products are not computed, unless an op needs their values."""

from __future__ import annotations

import zlib

import pytest
import torch
from torch import nn

from composecli.runtime.joining.factored_gradients import (
    ProductUsed,
    crc,
    factored_gradients,
    factors_of,
)

WIDTH = 300


def test_the_gradient_of_a_large_matrix_is_not_computed() -> None:
    weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
    x = torch.randn(2, WIDTH)
    with factored_gradients({(WIDTH, WIDTH)}):
        nn.functional.linear(x, weight).sum().backward()
    assert weight.grad is not None
    one, other = torch.ones(2, WIDTH), x
    assert factors_of(weight.grad) in [
        (crc(one.t()), crc(other)), (crc(other.t()), crc(one)),
    ]  # fmt: skip


def test_a_product_that_is_more_than_a_gradient_needs_its_values() -> None:
    weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
    with pytest.raises(ProductUsed), factored_gradients({(WIDTH, WIDTH)}):
        (nn.functional.linear(torch.randn(2, WIDTH), weight * 2)).sum().backward()


def test_a_matrix_that_is_used_twice_needs_the_values_of_its_gradients() -> None:
    weight = nn.Parameter(torch.randn(WIDTH, WIDTH))
    x = torch.randn(2, WIDTH)
    with pytest.raises(ProductUsed), factored_gradients({(WIDTH, WIDTH)}):
        nn.functional.linear(nn.functional.linear(x, weight), weight).sum().backward()


@pytest.mark.parametrize(
    ("rows", "inner", "shapes"),
    [
        (200, 2, {(200, 200)}),
        (WIDTH, WIDTH, {(WIDTH, WIDTH)}),
        (WIDTH, 2, {(WIDTH, WIDTH + 1)}),
        (WIDTH, 2, set[tuple[int, int]]()),
    ],
    ids=["small", "no larger than its factors", "not a parameter's shape", "no parameter"],
)
def test_other_products_are_computed(rows: int, inner: int, shapes: set[tuple[int, int]]) -> None:
    one, other = torch.randn(rows, inner), torch.randn(inner, rows)
    with factored_gradients(shapes):
        product = one @ other
    assert factors_of(product) is None
    assert torch.equal(product, one @ other)


def test_views_and_copies_of_a_product_have_its_factors() -> None:
    one, other = torch.randn(WIDTH, 2), torch.randn(2, WIDTH)
    with factored_gradients({(WIDTH, WIDTH)}):
        product = one @ other
        derived = [product.t(), product.detach(), product.view(-1), product.clone()]
    assert factors_of(product) == (crc(one), crc(other))
    assert all(factors_of(tensor) == factors_of(product) for tensor in derived)


def test_products_are_computed_again_after_the_block() -> None:
    one, other = torch.randn(WIDTH, 2), torch.randn(2, WIDTH)
    with factored_gradients({(WIDTH, WIDTH)}):
        pass
    assert factors_of(one @ other) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_the_checksum_is_of_the_values_in_order(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    content = bytes(tensor.contiguous().view(-1).view(torch.uint8).tolist())
    assert crc(tensor) == zlib.crc32(content)
    assert crc(tensor.t().contiguous().t()) == crc(tensor)
    assert crc(tensor.t()) == crc(tensor.t().clone())
