"""The judge: whether a contract is what the model really does, measured by running it at sizes on both sides of every
claim."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from composecli.core.contract import Contract, Port, takes_dtype
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
MOST_ELEMENTS = 400_000
# Beyond the usual tables of positions.
LONG = 600


@dataclass(frozen=True)
class Judgement:
    """`wrong` lists the claims that running contradicts; `open` the dims that are not known."""

    wrong: tuple[str, ...]
    open: tuple[str, ...]


def judge(contract: Contract, file_model: nn.Module, eager: nn.Module) -> Judgement:
    ports = (*contract.inputs, *contract.outputs)
    optional = [port for port in contract.inputs if port.optional]
    contract = replace(contract, inputs=contract.required)
    unknown = [
        f"{port.name}: {dim.reason}"
        for port in ports
        for dim in port.dims or ()
        if isinstance(dim, Unknown)
    ]
    wrong = [
        text for sizes in _admitted(contract) for text in _admission(contract, sizes, file_model)
    ]
    wrong += [
        text
        for where, calls in _excluded(contract)
        for text in _exclusion(where, calls, file_model, eager)
    ]
    for port in optional:
        beside = _with_optional(contract, port)
        wrong += [
            text for sizes in _admitted(beside) for text in _admission(beside, sizes, file_model)
        ]
    return Judgement(tuple(dict.fromkeys(wrong)), tuple(unknown))


def _with_optional(contract: Contract, port: Port) -> Contract:
    """The contract of a call that gives this input, too."""
    base = _base(contract)
    sizes = tuple(
        base[dim.name] if isinstance(dim, Free) else int(str(dim)) for dim in port.dims or ()
    )
    number = len(contract.example.arguments)
    example = Call(
        (*contract.example.arguments, Argument(TensorSpec(port.dtype, sizes), port.name))
    )
    return replace(
        contract, inputs=(*contract.inputs, replace(port, path=(number,))), example=example
    )


def _free(contract: Contract) -> dict[str, Free]:
    return {
        dim.name: dim
        for port in contract.inputs
        for dim in port.dims or ()
        if isinstance(dim, Free)
    }


def _base(contract: Contract) -> dict[str, int]:
    specs = dict(call_leaves(contract.example))
    return {
        dim.name: size
        for port in contract.inputs
        for dim, size in zip(port.dims or (), specs[port.path].sizes, strict=False)
        if isinstance(dim, Free)
    }


def _admitted(contract: Contract) -> Iterator[dict[str, int]]:
    """Sizes that the contract admits: each name alone at its ends and in between, then all of them at once."""
    base, free = _base(contract), _free(contract)
    generator = random.Random(0)
    yield base
    together = dict(base)
    for name, dim in free.items():
        low = dim.low + -dim.low % dim.step
        top = (
            dim.high
            if dim.high is not None
            else max(4 * base[name], base[name] + 5 * dim.step, LONG)
        )
        top -= top % dim.step
        steps = (top - low) // dim.step
        some = {low + dim.step * generator.randint(0, steps) for _ in range(2)}
        for size in sorted(
            {low, top, base[name] + dim.step, 2 * base[name], 4 * base[name], *some}
        ):
            if admits(dim, size):
                yield {**base, name: size}
        together[name] = low + dim.step * generator.randint(
            0, min(steps, 2 + base[name] // dim.step)
        )
    if len(free) > 1:
        yield together


def _at(contract: Contract, sizes: dict[str, int]) -> Call:
    changes = dict[KeyPath, TensorSpec]()
    specs = dict(call_leaves(contract.example))
    for port in contract.inputs:
        if port.dims is not None:
            wanted = tuple(
                sizes[dim.name] if isinstance(dim, Free) else size
                for dim, size in zip(port.dims, specs[port.path].sizes, strict=True)
            )
            changes[port.path] = replace(specs[port.path], sizes=wanted, sample=None)
    return replace_call_leaf(contract.example, changes)


def _run(model: nn.Module, call: Call, seed: int) -> Any:
    """The result as a tree of specs, or the error."""
    positional, named = Maker("cpu", seed, []).call(call)
    try:
        with torch.no_grad(), torch.jit.optimized_execution(False):
            return tree_of(model(*positional, **named))
    except Exception as error:
        return error


def _too_large(call: Call) -> bool:
    return call.elements > MOST_ELEMENTS


def _admission(contract: Contract, sizes: dict[str, int], model: nn.Module) -> Iterator[str]:
    call = _at(contract, sizes)
    if _too_large(call):
        return
    for seed in SEEDS:
        seen = _run(model, call, seed)
        if isinstance(seen, Exception):
            yield f"admits {call}, which is refused: {str(seen).strip().splitlines()[-1][:80] if str(seen) else ''}"
            return
        found = [spec for _, spec in leaves(seen)]
        if len(found) != len(contract.outputs):
            yield f"{len(contract.outputs)} outputs, {len(found)} at {call}"
            return
        for port, spec in zip(contract.outputs, found, strict=True):
            yield from _output(port, spec, sizes, call)


def _output(port: Port, spec: TensorSpec, sizes: dict[str, int], call: Call) -> Iterator[str]:
    if not takes_dtype(port, spec.dtype):
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


def _excluded(contract: Contract) -> Iterator[tuple[str, tuple[Call, ...]]]:
    """Calls that the contract excludes, with the claim: beside each end (the others at their base, and at their low
    ends), off each step, beside each fixed size."""
    base = _base(contract)
    lows = {name: dim.low + -dim.low % dim.step for name, dim in _free(contract).items()}
    beyond = {name: max(1, low - _free(contract)[name].step) for name, low in lows.items()}
    for name, dim in _free(contract).items():
        beside = [dim.low - dim.step] + ([dim.high + dim.step] if dim.high is not None else [])
        beside += [base[name] + 1] if dim.step > 1 else []
        for size in beside:
            if size > 0 and not admits(dim, size):
                yield (
                    str(dim),
                    (_at(contract, {**base, name: size}), _at(contract, {**beyond, name: size})),
                )
    specs = dict(call_leaves(contract.example))
    fixed = [
        (p, axis, d)
        for p in contract.inputs
        for axis, d in enumerate(p.dims or ())
        if isinstance(d, Fixed)
    ]
    for port, axis, known in fixed:
        spec = specs[port.path]
        for size in (known.size - 1, known.size + 1, 2 * known.size):
            sizes = (*spec.sizes[:axis], size, *spec.sizes[axis + 1 :])
            if size > 1:
                changed = {port.path: replace(spec, sizes=sizes, sample=None)}
                yield (
                    f"{port.name} axis {axis} is {known}",
                    (replace_call_leaf(contract.example, changed),),
                )


def _exclusion(
    claim: str, calls: tuple[Call, ...], file_model: nn.Module, eager: nn.Module
) -> Iterator[str]:
    """A claim is contradicted where both the file and the model that it was made of take what it excludes."""
    models = (file_model,) if eager is file_model else (file_model, eager)
    for call in calls:
        if _too_large(call):
            return
        for model in models:
            for seed in SEEDS:
                if isinstance(_run(model, call, seed), Exception):
                    return
    yield f"{claim}, but {calls[0]} is taken"
