"""Refusals in the symbols of the chain's input: which of its sizes a failing op was given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from composecli.core.dims import Shape, as_expr
from composecli.core.size_expr import Const, Expr, evaluate, multiply, symbols

Sizes = Mapping[str, int]


def explanations(shapes: Iterable[Shape], have: int, sizes: Sizes) -> Iterator[Expr]:
    """Yield the expressions of a producer's dims that have this value at these sizes.

    A layer behind a flatten was given 4096 features where the producer gives
    `float32[N, 16, ceil(H/4), ceil(W/4)]` and `H = W = 64`: they are `16*ceil(H/4)*ceil(W/4)`.
    """
    found = dict[Expr, None]()
    for dims in shapes:
        for expr in _products(dims):
            if symbols(expr) and symbols(expr) <= sizes.keys():
                found[expr] = None
    for expr in found:
        if evaluate(expr, sizes) == have:
            yield expr


def _products(dims: Shape) -> Iterator[Expr]:
    """Yield the product of each run of neighbouring dims, the longest last."""
    exprs = [as_expr(dim) for dim in dims]
    for length in range(1, len(exprs) + 1):
        for start in range(len(exprs) - length + 1):
            run = exprs[start : start + length]
            known = [expr for expr in run if expr is not None]
            if len(known) == length:
                yield multiply(Const(1), *known)
