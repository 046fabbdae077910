"""Give a contract the relations between its dims, and the dims of the outputs that follow them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

from composecli.core.contract import Port, fresh_name
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
    unknown_reason,
)
from composecli.core.observations import Accepted, Rejected
from composecli.core.pytree import Call, KeyPath, call_leaves, leaves, resized
from composecli.core.relations import (
    Relation,
    Where,
    format_where,
    other_sizes_meeting,
)
from composecli.core.size_expr import (
    Const,
    Expr,
    Symbol,
    evaluate,
    floor_divide,
    multiply,
    symbols,
)
from composecli.inference.axis_groups import Leaves, same_structure
from composecli.inference.free_dims import ExploredAxes
from composecli.inference.prober import Probe
from composecli.inference.refused_sizes import find_multiples, find_one_size
from composecli.inference.related_axes import RelatedAxes, Trials, find_related

# Of how many axes a size may be the product.
MAX_FACTORS = 5
MAX_NOTED_SIZES = 6

Inputs = Mapping[KeyPath, Shape]
# The sizes of the free dims, by name, and the result that they led to.
Point = tuple[Mapping[str, int], Leaves]
# The sizes of the free dims, and that of one axis of the result.
Observed = tuple[Mapping[str, int], int]


def relate_axes(explored: ExploredAxes, probe: Probe) -> ExploredAxes:
    """Relate the axes of each input that only their product fixes, and make their dims free.

    `float32[N, 16, 8, 8] -> float32[N, 10]` becomes `float32[N, C, H, W] where C*H*W == 1024 ->
    float32[N, 10]`, and `float32[?, ?, ?, ?] -> float32[?, 4]`, with `N*C*H*W % 1024 == 0`, has
    the output `float32[N*C*H*W//1024, 4]`. An empty tensor tells nothing about products.
    """
    example = explored.example
    if example.where:
        return _with_stated_relations(explored, probe)
    for path, spec in call_leaves(example.call):
        if path in example.stated or 0 in spec.sizes:
            continue
        trials = Trials(example.call, path, explored.inputs[path], probe, example.limits)
        related = find_multiples(trials, is_open=_is_open(explored))
        related = related or find_related(trials) or find_one_size(trials)
        if related is not None:
            trials.accepted[example.call] = tuple(leaves(example.result))
            explored = _with_relation(explored, trials, related)
    return explored


def _is_open(explored: ExploredAxes) -> bool:
    """Return whether a size of the result is not known, though it follows from sizes alone."""
    for port in explored.outputs:
        for dim in port.dims or ():
            if unknown_reason(dim) is not None and not follows_values(dim):
                return True
    return False


def _with_stated_relations(explored: ExploredAxes, probe: Probe) -> ExploredAxes:
    """Confirm stated relations at other sizes; their dims are unknown if one is refused."""
    example, inputs = explored.example, explored.inputs
    accepted = dict[Call, Leaves]()
    ranges = {free.name: free for dims in inputs.values() for free in free_dims(dims)}
    base = _sizes(example.call, inputs)
    for sizes in other_sizes_meeting(example.where, ranges, base):
        call = _resized(example.call, inputs, sizes)
        match probe(call):
            case Accepted(results=results):
                accepted[call] = tuple(leaves(results[-1]))
            case Rejected():
                return _contradicted(explored, sizes)
    accepted[example.call] = tuple(leaves(example.result))
    points = list(_points(accepted, inputs))
    outputs = tuple(fitting_outputs(explored.outputs, points))
    return replace(explored, outputs=outputs, where=example.where)


def _resized(call: Call, inputs: Inputs, sizes: Mapping[str, int]) -> Call:
    """Return the call with these sizes of the free dims."""
    for path, dims in inputs.items():
        for number, dim in enumerate(dims):
            free = as_free(dim)
            if free is not None:
                call = resized(call, ((path, number),), sizes[free.name])
    return call


def _contradicted(explored: ExploredAxes, sizes: Mapping[str, int]) -> ExploredAxes:
    """Return the axes with the related dims unknown: sizes that were stated are refused."""
    example = explored.example
    listed = ", ".join(f"{name} = {sizes[name]}" for name in sorted(example.related))
    unknown = Unknown(f"stated{format_where(example.where)}; refused {listed}")
    inputs = dict[KeyPath, Shape]()
    for path, dims in explored.inputs.items():
        inputs[path] = tuple(_unless_related(dim, example.related, unknown) for dim in dims)
    outputs = list[Port]()
    for port in explored.outputs:
        rank = len(port.dims or ())
        outputs.append(replace(port, dims=(unknown,) * rank))
    return replace(explored, inputs=inputs, outputs=tuple(outputs))


def _unless_related(dim: Dim, related: frozenset[str], unknown: Unknown) -> Dim:
    """Return the dim, or the unknown one if it has one of these names."""
    free = as_free(dim)
    if free is not None and free.name in related:
        return unknown
    return dim


def _with_relation(explored: ExploredAxes, trials: Trials, related: RelatedAxes) -> ExploredAxes:
    """Return the axes with free dims, the relation, and outputs that fit all that was tried."""
    inputs = _named(explored, related)
    names = dict[int, str]()
    for number in related.numbers:
        free = as_free(inputs[related.path][number])
        if free is not None:
            names[number] = free.name
    relation = related.relation(names)
    where: Where = (relation,)
    if related.is_one_multiple:
        where = ()
    points = list(_points(trials.accepted, inputs))
    outputs = tuple(fitting_outputs(explored.outputs, points, related.factors(names)))
    note = _note(relation, trials, inputs)
    return replace(
        explored,
        inputs=inputs,
        outputs=outputs,
        notes=(*explored.notes, note),
        where=(*explored.where, *where),
    )


def _named(explored: ExploredAxes, related: RelatedAxes) -> dict[KeyPath, Shape]:
    """Return the inputs with a free dim of any size on each related axis."""
    used = {free.name for dims in explored.inputs.values() for free in free_dims(dims)}
    spec = dict(call_leaves(explored.example.call))[related.path]
    layout = explored.example.layouts.get(related.path, "")
    dims = list(explored.inputs[related.path])
    for number in related.numbers:
        free = as_free(dims[number])
        if free is None:
            name = fresh_name(spec, number, used, layout)
        else:
            name = free.name
        step = 1
        if related.is_one_multiple:
            step = related.number
        low, high = related.lows.get(number, 1), related.highs.get(number)
        dims[number] = Free(name, low, high, step)
    return {**explored.inputs, related.path: tuple(dims)}


def _points(accepted: Mapping[Call, Leaves], inputs: Inputs) -> Iterator[Point]:
    """Yield the result of each accepted call, with the sizes of the free dims."""
    for call, result in accepted.items():
        yield _sizes(call, inputs), result


def _sizes(call: Call, inputs: Inputs) -> dict[str, int]:
    """Return the sizes of the free dims in a call, by name."""
    sizes = dict[str, int]()
    for path, spec in call_leaves(call):
        for dim, size in zip(inputs[path], spec.sizes, strict=True):
            free = as_free(dim)
            if free is not None:
                sizes.setdefault(free.name, size)
    return sizes


def fitting_outputs(
    ports: Sequence[Port], points: Sequence[Point], factors: Sequence[Expr] = ()
) -> Iterator[Port]:
    """Yield the outputs with dims that predict the size at each point, the example last.

    A dim may be a product of the factors and of the free dims themselves, or is unknown.
    """
    _, base = points[-1]
    is_stable = all(same_structure(base, result) for _, result in points)
    for number, port in enumerate(ports):
        dims = list[Dim]()
        for axis, dim in enumerate(port.dims or ()):
            if not is_stable:
                dims.append(Unknown("the structure of the result changes with its sizes"))
                continue
            observed = [(sizes, result[number][1].sizes[axis]) for sizes, result in points]
            dims.append(_fitting_dim(dim, observed, factors))
        yield replace(port, dims=tuple(dims))


def _fitting_dim(dim: Dim, observed: Sequence[Observed], factors: Sequence[Expr]) -> Dim:
    """Return the dim itself if it predicts each size; else a product that does."""
    expr = as_expr(dim)
    if expr is not None and _predicts(expr, observed):
        return dim
    sizes, size = observed[-1]
    parts = dict.fromkeys((*factors, *map(Symbol, sizes)))
    for other in _products(tuple(parts), sizes, size):
        if _predicts(other, observed):
            return as_dim(other)
    return Unknown("it follows the related sizes by no rule found")


def _predicts(expr: Expr, observed: Iterable[Observed]) -> bool:
    """Return whether the expression has each size that was observed."""
    names = symbols(expr)
    for sizes, size in observed:
        if not names <= sizes.keys() or evaluate(expr, sizes) != size:
            return False
    return True


def _products(factors: Sequence[Expr], sizes: Mapping[str, int], size: int) -> Iterator[Expr]:
    """Yield expressions of this size: products of factors, the shortest first.

    They are multiplied by a number, or divided by one.
    """
    for count in range(min(len(factors), MAX_FACTORS) + 1):
        for chosen in combinations(factors, count):
            product = math.prod(evaluate(factor, sizes) for factor in chosen)
            if not product or not size:
                continue
            common = math.gcd(product, size)
            scaled = multiply(Const(size // common), *chosen)
            yield floor_divide(scaled, product // common)


def _note(relation: Relation, trials: Trials, inputs: Inputs) -> str:
    """Return the sizes that were tried together, as evidence."""
    free = free_dims(inputs[trials.path])
    names = [dim.name for dim in free if dim.name in relation.symbols]
    listed = ", ".join(names)
    taken = _latest(_text(call, names, inputs) for call in trials.accepted)
    refused = _latest(_text(call, names, inputs) for call in trials.refused)
    return f"({listed}) took {taken}; refused {refused}"


def _latest(texts: Iterable[str]) -> str:
    """Return the last few of these texts, each once."""
    distinct = list(dict.fromkeys(texts))
    return ", ".join(distinct[-MAX_NOTED_SIZES:])


def _text(call: Call, names: Sequence[str], inputs: Inputs) -> str:
    """Return the sizes of these names in a call: `(16, 8, 8)`."""
    sizes = _sizes(call, inputs)
    listed = ", ".join(str(sizes[name]) for name in names)
    return f"({listed})"
