"""Propagating dims: a consumer's outputs in the symbols of the chain's input."""

from __future__ import annotations

from dataclasses import replace

from composecli.compose.compare import ConsumerPort, ProducerPort
from composecli.core.contract import Port
from composecli.core.dims import Dim, Free, Shape, Unknown, as_dim, as_expr
from composecli.core.dtypes import ANY_FLOAT
from composecli.core.size_expr import Const, Expr, Symbol, substitute, symbols


def propagate(
    outputs: tuple[Port, ...], pairs: tuple[tuple[ProducerPort, ConsumerPort], ...]
) -> tuple[Port, ...]:
    """A consumer's outputs in the symbols of the chain's input: its own input symbols give way to what it was fed.

    A symbol that nothing is known of becomes unknown. An output of any rank takes the dims of the one input.
    """
    known, lost = dict[str, Expr](), set[str]()
    for offer, ask in pairs:
        if ask.port.dims is None or len(ask.port.dims) != len(offer.shown):
            continue
        for given, dim in zip(offer.shown, ask.port.dims, strict=True):
            if isinstance(dim, Free):
                expr = as_expr(given)
                if expr is None:
                    lost.add(dim.name)
                else:
                    known.setdefault(dim.name, expr)
    shown = pairs[0][0].shown if len(pairs) == 1 else None
    ranges = {dim.name: dim for offer, _ in pairs for dim in offer.shown if isinstance(dim, Free)}
    dtype = pairs[0][0].found.dtype if len(pairs) == 1 else None
    return tuple(_carried_port(port, known, lost, shown, ranges, dtype) for port in outputs)


def _carried_port(
    port: Port,
    known: dict[str, Expr],
    lost: set[str],
    same: Shape | None,
    ranges: dict[str, Free],
    dtype: str | None,
) -> Port:
    if port.dtype == ANY_FLOAT and dtype is not None:
        port = replace(port, dtype=dtype)
    if port.dims is None:
        return replace(port, dims=same)
    return replace(port, dims=tuple(_carried_dim(dim, known, lost, ranges) for dim in port.dims))


def _carried_dim(dim: Dim, known: dict[str, Expr], lost: set[str], ranges: dict[str, Free]) -> Dim:
    expr = as_expr(dim)
    if expr is None or isinstance(expr, Const):
        return dim
    if symbols(expr) & lost:
        return Unknown("follows from a size that is not known")
    carried_expr = substitute(expr, known)
    if isinstance(carried_expr, Symbol) and carried_expr.name in ranges:
        return ranges[carried_expr.name]
    return as_dim(carried_expr)
