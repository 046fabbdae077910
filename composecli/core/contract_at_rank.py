"""A contract of any rank, at the rank of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from composecli.core.contract import Contract, Port, Signature, accepts_call, fresh_name
from composecli.core.dims import (
    Dim,
    Fixed,
    Free,
    Shape,
    as_dim,
    as_expr,
    as_free,
    fixed_size,
    free_dims,
)
from composecli.core.pytree import Call, TensorSpec, Tree, call_leaves
from composecli.core.relations import Comparison, Relation, Where, substitute_relation
from composecli.core.size_expr import (
    PRODUCT_OF_REST,
    Const,
    Expr,
    Symbol,
    multiply,
    substitute,
    symbols,
)

Exprs = Mapping[str, Expr]


@dataclass(frozen=True, slots=True)
class _AtRank:
    """The dims of an input at one rank, its relations, and the expressions of replaced symbols."""

    dims: Shape
    where: Where
    by: Exprs


def at_rank(contract: Contract, call: Call, result: Tree) -> Contract | None:
    """Return the contract at the rank of a call that the model accepted with this result.

    `float32[N, *] where prod(*) == 1024` is `float32[N, C, H, W] where C*H*W == 1024` at
    `float32[2, 16, 8, 8]`, and `float32[N, 1024]` at two axes. None if it is not of any rank, or if
    it does not allow the call.
    """
    if contract.any_rank is None:
        return None
    found = replace(at_rank_of(contract, call), example=call, result=result)
    if not accepts_call(found, call):
        return None
    return found


def at_rank_of(contract: Contract, call: Call) -> Contract:
    """Return the contract with its ports at the rank of a call, and the example that it had.

    It is the contract itself if it has one rank only, or allows no call of this rank.
    """
    specs = [spec for _, spec in call_leaves(call)]
    if contract.any_rank is None or len(specs) != 1:
        return contract
    return _with_rank(contract, contract.any_rank, len(specs[0].sizes))


def with_one_axis(contract: Contract) -> Contract:
    """Return the contract with its ports at the rank at which `*` stands for a single axis.

    It is the contract itself if it has one rank only.
    """
    if contract.any_rank is None:
        return contract
    (port,) = contract.any_rank.inputs
    return _with_rank(contract, contract.any_rank, 1 + len(port.dims or ()))


def _with_rank(contract: Contract, signature: Signature, rank: int) -> Contract:
    """Return the contract with the ports that a signature has at one rank, if it has any there."""
    (port,) = signature.inputs
    if rank < len(port.dims or ()):
        return contract
    ranked = _ranked(port, rank, signature.where)
    outputs = tuple(_substituted(output, ranked.by) for output in signature.outputs)
    inputs = (replace(port, dims=ranked.dims, rest=None),)
    return replace(contract, inputs=inputs, outputs=outputs, where=ranked.where)


def _ranked(port: Port, rank: int, where: Where) -> _AtRank:
    """Return the dims of a port with a dim for each axis that `*` stands for.

    A relation of one symbol is its dim: `D == 1024` is fixed, and `D % 64 == 0` a multiple.
    """
    dims, rest = _with_rest(port, rank)
    product = multiply(*map(Symbol, rest))
    alone = dict[str, Dim]()
    related = list[Relation]()
    for relation in where:
        ranked = substitute_relation(relation, {PRODUCT_OF_REST: product})
        dim = _dim_alone(ranked)
        if dim is None:
            related.append(ranked)
        else:
            alone |= dict.fromkeys(ranked.symbols, dim)
    by = dict[str, Expr]()
    for name, dim in alone.items():
        size = fixed_size(dim)
        if size is not None:
            by[name] = Const(size)
    return _AtRank(
        dims=tuple(_replaced(dim, alone) for dim in dims),
        where=tuple(related),
        by={**by, PRODUCT_OF_REST: substitute(product, by)},
    )


def _with_rest(port: Port, rank: int) -> tuple[Shape, list[str]]:
    """Return the dims with a free one for each axis that `*` stands for, and their names."""
    dims = port.dims or ()
    place = port.rest or 0
    used = {free.name for free in free_dims(dims)}
    # Names follow from the rank and the dtype alone.
    spec = TensorSpec(port.dtype, (1,) * rank)
    count = rank - len(dims)
    names = [fresh_name(spec, axis, used) for axis in range(place, place + count)]
    rest = tuple(map(Free, names))
    return (*dims[:place], *rest, *dims[place:]), names


def _dim_alone(relation: Relation) -> Dim | None:
    """Return the dim that a relation of one symbol turns it into; None for any other relation."""
    match relation:
        case Relation(Symbol(), Comparison.EQUALS, Const(size)):
            return Fixed(size)
        case Relation(Symbol(name), Comparison.MULTIPLE_OF, Const(step)):
            return Free(name, step=step)
    return None


def _replaced(dim: Dim, by: Mapping[str, Dim]) -> Dim:
    """Return the dim that stands for a name, or the dim itself."""
    free = as_free(dim)
    if free is None:
        return dim
    return by.get(free.name, dim)


def _substituted(port: Port, by: Exprs) -> Port:
    """Return an output with its dims in the symbols of one rank."""
    dims = list[Dim]()
    for dim in port.dims or ():
        expr = as_expr(dim)
        if expr is None or symbols(expr).isdisjoint(by):
            dims.append(dim)
        else:
            dims.append(as_dim(substitute(expr, by)))
    return replace(port, dims=tuple(dims))
