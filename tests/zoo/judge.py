"""Compare a contract with the model that it describes, by running the model.

Every claimed bound is tried from both sides: calls that the contract admits must run, and calls
that it excludes must fail.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from composecli.core.contract import Contract, Port, accepts_dtype
from composecli.core.dims import Derived, Fixed, Free, Unknown, admits
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    TensorSpec,
    call_leaves,
    leaves,
    replace_call_leaf,
)
from composecli.core.size_expr import evaluate
from composecli.runtime.tensors import Maker, tree_of

SEEDS = (1, 2)
MAX_ELEMENTS = 400_000
# Longer than the usual embedding tables of positions.
LONG_SIZE = 600
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
    wrong = list(_contradicted_admissions(contract, file_model))
    for exclusion in _exclusions(contract):
        if _is_contradicted(exclusion, file_model, eager):
            wrong.append(f"{exclusion.claim}, but {exclusion.calls[0]} is accepted")
    for port in optional:
        extended = _with_optional(contract, port)
        wrong += _contradicted_admissions(extended, file_model)
    return Judgement(tuple(dict.fromkeys(wrong)), tuple(unknown))


def _unknown_dims(contract: Contract) -> Iterator[str]:
    for port in (*contract.inputs, *contract.outputs):
        for dim in port.dims or ():
            if isinstance(dim, Unknown):
                yield f"{port.name}: {dim.reason}"


def _contradicted_admissions(contract: Contract, model: nn.Module) -> Iterator[str]:
    for sizes in _admitted_sizes(contract):
        yield from _check_admission(contract, sizes, model)


def _with_optional(contract: Contract, port: Port) -> Contract:
    """Return the contract of a call that also passes this optional input."""
    base = _base_sizes(contract)
    sizes = list[int]()
    for dim in port.dims or ():
        if isinstance(dim, Free):
            sizes.append(base[dim.name])
        else:
            sizes.append(int(str(dim)))
    arguments = contract.example.arguments
    passed = Argument(TensorSpec(port.dtype, tuple(sizes)), port.name)
    return replace(
        contract,
        inputs=(*contract.inputs, replace(port, path=(len(arguments),))),
        example=Call((*arguments, passed)),
    )


def _free_dims(contract: Contract) -> dict[str, Free]:
    dims = dict[str, Free]()
    for port in contract.inputs:
        for dim in port.dims or ():
            if isinstance(dim, Free):
                dims[dim.name] = dim
    return dims


def _base_sizes(contract: Contract) -> Sizes:
    """Return the size that each free dim has in the example."""
    specs = dict(call_leaves(contract.example))
    base = Sizes()
    for port in contract.inputs:
        for dim, size in zip(port.dims or (), specs[port.path].sizes, strict=False):
            if isinstance(dim, Free):
                base[dim.name] = size
    return base


def _admitted_sizes(contract: Contract) -> Iterator[Sizes]:
    """Yield sizes that the contract admits.

    First the example's, then each free dim on its own at its bounds and in between, then all free
    dims changed at once.
    """
    base = _base_sizes(contract)
    free = _free_dims(contract)
    generator = random.Random(0)
    yield base
    together = dict(base)
    for name, dim in free.items():
        low = _lowest(dim)
        top = _highest(dim, base[name])
        steps = (top - low) // dim.step
        in_between = {low + dim.step * generator.randint(0, steps) for _ in range(2)}
        candidates = {low, top, base[name] + dim.step, 2 * base[name], 4 * base[name], *in_between}
        for size in sorted(candidates):
            if admits(dim, size):
                yield {**base, name: size}
        few_steps = min(steps, 2 + base[name] // dim.step)
        together[name] = low + dim.step * generator.randint(0, few_steps)
    if len(free) > 1:
        yield together


def _lowest(dim: Free) -> int:
    """Return the smallest multiple of the step that is not below the lower bound."""
    return dim.low + -dim.low % dim.step


def _highest(dim: Free, base: int) -> int:
    """Return the largest size to try: the upper bound, or a long size if there is none."""
    top = max(4 * base, base + 5 * dim.step, LONG_SIZE)
    if dim.high is not None:
        top = dim.high
    return top - top % dim.step


def _call_at(contract: Contract, sizes: Sizes) -> Call:
    """Return the example call with its free dims set to these sizes."""
    changes = dict[KeyPath, TensorSpec]()
    specs = dict(call_leaves(contract.example))
    for port in contract.inputs:
        if port.dims is None:
            continue
        spec = specs[port.path]
        wanted = list[int]()
        for dim, size in zip(port.dims, spec.sizes, strict=True):
            wanted.append(sizes[dim.name] if isinstance(dim, Free) else size)
        changes[port.path] = replace(spec, sizes=tuple(wanted), sample=None)
    return replace_call_leaf(contract.example, changes)


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


def _excluded_free_sizes(contract: Contract) -> Iterator[Exclusion]:
    """Yield sizes just outside the bounds and between the steps of each free dim.

    Each is tried twice: with the other dims at the example's sizes, and with them below their lower
    bounds, because another dim may be what makes the size acceptable.
    """
    base = _base_sizes(contract)
    free = _free_dims(contract)
    small = {name: max(1, _lowest(dim) - dim.step) for name, dim in free.items()}
    for name, dim in free.items():
        outside = [dim.low - dim.step]
        if dim.high is not None:
            outside.append(dim.high + dim.step)
        if dim.step > 1:
            outside.append(base[name] + 1)
        for size in outside:
            if size > 0 and not admits(dim, size):
                at_base = _call_at(contract, {**base, name: size})
                at_small = _call_at(contract, {**small, name: size})
                yield Exclusion(str(dim), (at_base, at_small))


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
