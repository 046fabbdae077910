"""Propagating dims: the outputs of a consumer in the symbols of the chain's input."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from composecli.compose.compare import PortPairs
from composecli.core.contract import Port
from composecli.core.dims import (
    Dim,
    Free,
    Shape,
    Unknown,
    as_dim,
    as_expr,
    as_free,
    follows_values,
    free_dims,
)
from composecli.core.dtypes import ANY_FLOAT
from composecli.core.size_expr import Const, Expr, Symbol, substitute, symbols


@dataclass(slots=True)
class _Bindings:
    """The symbols of a consumer's input, expressed in the symbols of the chain's input.

    `known` maps symbols to their expressions, and `unknown` those without one to their dim.
    `ranges` are the free dims of the producers, by name.
    """

    known: dict[str, Expr] = field(default_factory=dict)
    unknown: dict[str, Dim] = field(default_factory=dict)
    ranges: dict[str, Free] = field(default_factory=dict)


def propagate(outputs: tuple[Port, ...], pairs: PortPairs) -> tuple[Port, ...]:
    """Return a consumer's outputs in the symbols of the chain's input.

    The producer returns `float32[N, 64, H//8, W//8]`, where `H` and `W` are sizes of the image. The
    consumer accepts `float32[N, C, H, W]` and returns `float32[N, C, ceil(H/2), 2*W + 1]`: in the
    symbols of the image, `float32[N, 64, (H + 8)//16, 2*(W//8) + 1]`.

    A dim becomes unknown if it depends on an unknown one. If there is only one input, an output of
    any rank has its dims, and an output of any float dtype has its dtype.
    """
    bindings = _bind(pairs)
    if len(pairs) != 1:
        return tuple(_substitute_port(port, bindings, None) for port in outputs)
    producer = pairs[0][0]
    propagated = list[Port]()
    for port in outputs:
        result = _substitute_port(port, bindings, producer.dims)
        if port.dtype == ANY_FLOAT:
            result = replace(result, dtype=producer.example.dtype)
        propagated.append(result)
    return tuple(propagated)


def _bind(pairs: PortPairs) -> _Bindings:
    """Bind each symbol of the inputs to an expression: the first one if it has several."""
    bindings = _Bindings()
    for producer, consumer in pairs:
        for free in free_dims(producer.dims):
            bindings.ranges[free.name] = free
        dims = consumer.port.dims
        if dims is None or len(dims) != len(producer.dims):
            continue
        axes = zip(producer.dims, dims, strict=True)
        for producer_dim, consumer_dim in axes:
            symbol = as_free(consumer_dim)
            if symbol is None:
                continue
            expr = as_expr(producer_dim)
            if expr is None:
                bindings.unknown[symbol.name] = producer_dim
            else:
                bindings.known.setdefault(symbol.name, expr)
    return bindings


def _substitute_port(port: Port, bindings: _Bindings, any_rank: Shape | None) -> Port:
    """Substitute the dims of an output; `any_rank` are those of one without dims."""
    if port.dims is None:
        return replace(port, dims=any_rank)
    dims = tuple(_substitute_dim(dim, bindings) for dim in port.dims)
    return replace(port, dims=dims)


def _substitute_dim(dim: Dim, bindings: _Bindings) -> Dim:
    """Substitute the symbols of a dim; it becomes unknown if one of them is."""
    expr = as_expr(dim)
    if expr is None or isinstance(expr, Const):
        return dim
    unknown = [bindings.unknown[name] for name in symbols(expr) & bindings.unknown.keys()]
    if unknown:
        by_values = any(map(follows_values, unknown))
        return Unknown("depends on an unknown size", by_values)
    result = substitute(expr, bindings.known)
    if isinstance(result, Symbol) and result.name in bindings.ranges:
        return bindings.ranges[result.name]
    return as_dim(result)
