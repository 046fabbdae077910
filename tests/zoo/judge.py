"""Compare a contract with the model that it describes, by running the model.

Every claimed bound is tried from both sides: calls that the contract admits must run, and calls
that it excludes must fail.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import nn

from composecli.core.contract import Contract, Port, accepts_dtype
from composecli.core.contract_at_rank import at_rank
from composecli.core.dims import (
    Derived,
    Dim,
    Fixed,
    Free,
    Unknown,
    admits,
    as_expr,
    example_size,
    largest_size,
    sizes_outside,
)
from composecli.core.pytree import (
    Argument,
    Call,
    TensorSpec,
    call_leaves,
    leaves,
    replace_call_leaf,
    size_of,
)
from composecli.core.relations import all_hold, holds
from composecli.core.resizing import free_axes, resize, sizes_by_name
from composecli.core.size_expr import evaluate
from composecli.runtime.tensors import Maker, tree_of

SEEDS = (1, 2)
MAX_ELEMENTS = 400_000
# Longer than the usual embedding tables of positions.
LONG_SIZE = 600
# Sizes that are drawn for related dims, and how often.
MAX_RELATED_SIZE = 4200
MAX_DRAWS = 12
# The numbers of axes at which a claim about any number of them is tried.
RANKS = (2, 3, 4, 5, 6)
# Values of the names of free dims.
Sizes = dict[str, int]


@dataclass(frozen=True)
class Judgement:
    """`wrong` lists the claims that a run contradicts, `open` the dims that are unknown."""

    wrong: tuple[str, ...]
    open: tuple[str, ...]


class Exclusion(NamedTuple):
    """A claim, and calls of which at least one must fail if the claim is true."""

    claim: str
    calls: tuple[Call, ...]


def judge(contract: Contract, file_model: nn.Module, eager: nn.Module) -> Judgement:
    """Compare the contract of a file with the model in the file and the eager model behind it.

    Every call that the contract admits is run on the model in the file. A call that the contract
    excludes contradicts it only if both models accept it.
    """
    optional = [port for port in contract.inputs if port.optional]
    unknown = list(_unknown_dims(contract))
    contract = replace(contract, inputs=contract.required)
    wrong = list(_excluded_examples(contract))
    wrong += _contradicted_admissions(contract, file_model)
    for exclusion in _exclusions(contract):
        if _is_contradicted(exclusion, file_model, eager):
            wrong.append(f"{exclusion.claim}, but {exclusion.calls[0]} is accepted")
    wrong += _contradicted_ranks(contract, file_model, eager)
    for port in optional:
        extended = _with_optional(contract, port)
        wrong += _contradicted_admissions(extended, file_model)
    return Judgement(tuple(dict.fromkeys(wrong)), tuple(unknown))


def _unknown_dims(contract: Contract) -> Iterator[str]:
    for port in (*contract.inputs, *contract.outputs):
        for dim in port.dims or ():
            if isinstance(dim, Unknown):
                yield f"{port.name}: {dim.reason}"


def _excluded_examples(contract: Contract) -> Iterator[str]:
    """Yield the claims that would exclude the example, which was accepted."""
    for (path, number), free in free_axes(contract, contract.example):
        size = size_of(contract.example, (path, number))
        if not admits(free, size):
            yield f"{free}, but the example has {size}"
    base = sizes_by_name(contract, contract.example)
    for relation in contract.where:
        if not holds(relation, base):
            yield f"{relation}, but the example is {contract.example}"


def _contradicted_admissions(contract: Contract, model: nn.Module) -> Iterator[str]:
    for sizes in (*_admitted_sizes(contract), *_related_sizes(contract)):
        if not all_hold(contract.where, sizes):
            continue
        yield from _check_admission(contract, sizes, model)


def _with_optional(contract: Contract, port: Port) -> Contract:
    """Return the contract of a call that also passes this optional input."""
    base = sizes_by_name(contract, contract.example)
    sizes = tuple(_size_at(dim, base) for dim in port.dims or ())
    arguments = contract.example.arguments
    passed = Argument(TensorSpec(port.dtype, sizes), port.name)
    return replace(
        contract,
        inputs=(*contract.inputs, replace(port, path=(len(arguments),), optional=False)),
        example=Call((*arguments, passed)),
    )


def _size_at(dim: Dim, sizes: Sizes) -> int:
    """Return the size that a known dim has at these sizes of the free dims."""
    expr = as_expr(dim)
    assert expr is not None
    return evaluate(expr, sizes)


def _free_dims(contract: Contract) -> dict[str, Free]:
    dims = dict[str, Free]()
    for port in contract.inputs:
        for dim in port.dims or ():
            if isinstance(dim, Free):
                dims[dim.name] = dim
    return dims


def _admitted_sizes(contract: Contract) -> Iterator[Sizes]:
    """Yield sizes that the contract admits.

    First the example's, then each free dim on its own at its bounds and in between, then all free
    dims changed at once.
    """
    base = sizes_by_name(contract, contract.example)
    free = _free_dims(contract)
    generator = random.Random(0)
    yield base
    together = dict(base)
    for name, dim in free.items():
        low = example_size(dim, dim.low)
        top = _highest(dim, base[name])
        in_between = {example_size(dim, generator.randint(low, top)) for _ in range(2)}
        multiples = {2 * base[name], 4 * base[name]}
        next_size = example_size(dim, base[name] + 1)
        candidates = {low, top, next_size, *multiples, *in_between}
        for size in sorted(candidates):
            if admits(dim, size):
                yield {**base, name: size}
        small = min(top, base[name] + 2 * dim.step)
        together[name] = example_size(dim, generator.randint(low, max(low, small)))
    if len(free) > 1:
        yield together


def _related_sizes(contract: Contract) -> Iterator[Sizes]:
    """Yield sizes that meet the relations: all but one drawn, and the last one found by trying."""
    base = sizes_by_name(contract, contract.example)
    names = sorted(name for relation in contract.where for name in relation.symbols)
    free = _free_dims(contract)
    generator = random.Random(0)
    for draw in range(MAX_DRAWS):
        *drawn, last = generator.sample(list(dict.fromkeys(names)), len(set(names))) or [""]
        sizes = dict(base)
        for name in drawn:
            sizes[name] = generator.choice((1, 1, 2, 3, 4, 5, 7, 8, base[name], 2 * base[name]))
        fitting = [
            size
            for size in range(1, MAX_RELATED_SIZE)
            if last and admits(free[last], size)
            if all_hold(contract.where, {**sizes, last: size})
        ]
        if fitting:
            sizes[last] = fitting[min(draw % 3, len(fitting) - 1)]
            if all(admits(free[name], sizes[name]) for name in names):
                yield sizes


def _highest(dim: Free, base: int) -> int:
    """Return the largest size to try: the upper bound, or a long size if there is none."""
    largest = largest_size(dim)
    if largest is not None:
        return largest
    return example_size(dim, max(4 * base, base + 5 * dim.step, LONG_SIZE))


def _contradicted_ranks(
    contract: Contract, file_model: nn.Module, eager: nn.Module
) -> Iterator[str]:
    """Yield what is wrong with the claim that other ranks than that of the example are taken."""
    if contract.any_rank is None:
        return
    ((path, spec),) = call_leaves(contract.example)
    (relation,) = contract.any_rank.where
    for rank in RANKS:
        sizes = (*[1] * (rank - 1), relation.number or 1)
        tensor = replace(spec, sizes=sizes, sample=None)
        call = replace_call_leaf(contract.example, {path: tensor})
        result = _run(file_model, call, SEEDS[0])
        if isinstance(result, Exception):
            yield f"{relation}, but {call} fails: {_last_line(result)}"
            continue
        ranked = at_rank(contract, call, result)
        if ranked is None:
            yield f"{relation}, but {call} is not admitted"
            continue
        yield from _contradicted_admissions(ranked, file_model)
        for exclusion in _excluded_related_sizes(ranked):
            if _is_contradicted(exclusion, file_model, eager):
                yield f"{exclusion.claim}, but {exclusion.calls[0]} is accepted"


def _call_at(contract: Contract, sizes: Sizes) -> Call:
    """Return the example call with its free dims at these sizes, and those derived from them."""
    return resize(contract, contract.example, sizes)


def _run(model: nn.Module, call: Call, seed: int) -> Any:
    """Return the output as a tree of specs, or the exception that the model raised."""
    positional, named = Maker("cpu", seed, []).call(call)
    try:
        with torch.no_grad(), torch.jit.optimized_execution(False):
            return tree_of(model(*positional, **named))
    except Exception as error:
        return error


def _too_large(call: Call) -> bool:
    return call.elements > MAX_ELEMENTS


def _check_admission(contract: Contract, sizes: Sizes, model: nn.Module) -> Iterator[str]:
    """Yield what is wrong with the contract's claim about a call of these sizes."""
    call = _call_at(contract, sizes)
    if _too_large(call):
        return
    for seed in SEEDS:
        result = _run(model, call, seed)
        if isinstance(result, Exception):
            yield f"admits {call}, which fails: {_last_line(result)}"
            return
        outputs = [spec for _, spec in leaves(result)]
        if len(outputs) != len(contract.outputs):
            yield f"{len(contract.outputs)} outputs, {len(outputs)} at {call}"
            return
        for port, spec in zip(contract.outputs, outputs, strict=True):
            yield from _check_output(port, spec, sizes, call)


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if not lines:
        return ""
    return lines[-1][:80]


def _check_output(port: Port, spec: TensorSpec, sizes: Sizes, call: Call) -> Iterator[str]:
    if not accepts_dtype(port, spec.dtype):
        yield f"{port.name} is {spec.dtype} at {call}"
    if port.dims is None:
        return
    if len(port.dims) != len(spec.sizes):
        yield f"{port.name} has rank {len(spec.sizes)} at {call}"
        return
    for axis, (dim, size) in enumerate(zip(port.dims, spec.sizes, strict=True)):
        match dim:
            case Fixed(wanted):
                right = size == wanted
            case Free(name):
                right = size == sizes.get(name)
            case Derived(expr):
                right = size == evaluate(expr, sizes)
            case _:
                right = True
        if not right:
            yield f"{port.name} axis {axis} is {size}, not {dim}, at {call}"


def _exclusions(contract: Contract) -> Iterator[Exclusion]:
    yield from _excluded_free_sizes(contract)
    yield from _excluded_fixed_sizes(contract)
    yield from _excluded_related_sizes(contract)


def _excluded_related_sizes(contract: Contract) -> Iterator[Exclusion]:
    """Yield sizes near those of the example that break a relation: of one dim, or of two."""
    base = sizes_by_name(contract, contract.example)
    for relation in contract.where:
        names = sorted(relation.symbols)
        for changed in (*combinations(names, 1), *combinations(names, 2)):
            for factor, more in ((1, 1), (2, 0), (3, 0), (2, 1)):
                sizes = {**base, **{name: factor * base[name] + more for name in changed}}
                if not holds(relation, sizes):
                    yield Exclusion(str(relation), (_call_at(contract, sizes),))


def _excluded_free_sizes(contract: Contract) -> Iterator[Exclusion]:
    """Yield sizes just outside the bounds and between the steps of each free dim.

    Each is tried twice: with the other dims at the example's sizes, and with them below their lower
    bounds, because another dim may be what makes the size acceptable.
    """
    base = sizes_by_name(contract, contract.example)
    free = _free_dims(contract)
    small = {name: _below(dim) or dim.low for name, dim in free.items()}
    for name, dim in free.items():
        outside = {*sizes_outside(dim), *_between(dim, base[name])}
        for size in sorted(outside):
            if not admits(dim, size):
                at_base = _call_at(contract, {**base, name: size})
                at_small = _call_at(contract, {**small, name: size})
                yield Exclusion(str(dim), (at_base, at_small))


def _below(dim: Free) -> int | None:
    """Return the next size below the lower bound; None if there is none."""
    below = [size for size in sizes_outside(dim) if size < dim.low]
    return max(below, default=None)


def _between(dim: Free, base: int) -> list[int]:
    """Return the sizes less than a step above the base that have none of the remainders."""
    return [size for size in range(base + 1, base + dim.step) if not admits(dim, size)]


def _excluded_fixed_sizes(contract: Contract) -> Iterator[Exclusion]:
    """Yield sizes near each fixed size, and twice the fixed size."""
    specs = dict(call_leaves(contract.example))
    for port in contract.inputs:
        for axis, dim in enumerate(port.dims or ()):
            if not isinstance(dim, Fixed):
                continue
            spec = specs[port.path]
            for size in (dim.size - 1, dim.size + 1, 2 * dim.size):
                if size <= 1:
                    continue
                sizes = (*spec.sizes[:axis], size, *spec.sizes[axis + 1 :])
                changed = {port.path: replace(spec, sizes=sizes, sample=None)}
                call = replace_call_leaf(contract.example, changed)
                yield Exclusion(f"{port.name} axis {axis} is {dim}", (call,))


def _is_contradicted(exclusion: Exclusion, file_model: nn.Module, eager: nn.Module) -> bool:
    """Whether the model in the file and the eager model accept every call of the exclusion."""
    models = [file_model]
    if eager is not file_model:
        models.append(eager)
    for call in exclusion.calls:
        if _too_large(call):
            return False
        for model in models:
            for seed in SEEDS:
                if isinstance(_run(model, call, seed), Exception):
                    return False
    return True
