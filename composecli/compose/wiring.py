"""Wiring: which part of a producer's result goes to which argument of the consumer."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.blueprint import Feed
from composecli.core.facts import ArgumentFact
from composecli.core.findings import Finding, Side
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    describe_tree,
    get_path,
    keystr,
    leaves,
)
from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class Wiring:
    """One feed for each argument of the consumer, and the call that they make of this result."""

    feeds: tuple[Feed, ...]
    call: Call


@dataclass(frozen=True, slots=True)
class Edge:
    """The names of the two models at a seam."""

    producer: str
    consumer: str


def wire(
    result: Tree, arguments: tuple[ArgumentFact, ...], selected: KeyPath, ends: Edge
) -> Wiring | Finding:
    """How `result` (or the part of it that was selected) becomes the consumer's call, or why it does not."""
    part = get_path(result, selected)
    required = [argument for argument in arguments if argument.required]
    if isinstance(part, TensorSpec):
        if len(required) > 1:
            return _count_finding(1, required, ends)
        if required and _kind(required[0].type_name) in ("list", "tuple", "dict"):
            return _structure_finding(part, required, ends)
        return Wiring((Feed(selected),), Call((Argument(part),)))
    if len(required) == 1 and _takes_structure(required[0].type_name, part):
        return Wiring((Feed(selected),), Call((Argument(part),)))
    if len(required) > 1:
        return _spread(part, required, selected, ends)
    return _structure_finding(part, required, ends)


def _takes_structure(type_name: str, part: Tree) -> bool:
    return isinstance(part, TreeSequence | TreeMapping) and _kind(type_name) == part.kind


def _kind(type_name: str) -> str:
    """`list` of `List[Tensor]`"""
    return type_name.split("[", maxsplit=1)[0].rsplit(".", 1)[-1].lower()


def _spread(
    part: Tree, required: list[ArgumentFact], base: KeyPath, ends: Edge
) -> Wiring | Finding:
    names = [argument.name for argument in required]
    match part:
        case TreeSequence(_, items) if len(items) == len(required):
            feeds = tuple(Feed((*base, number)) for number in range(len(items)))
            return Wiring(feeds, Call(tuple(Argument(item) for item in items)))
        case TreeMapping(entries) if all(any(key == name for key, _ in entries) for name in names):
            values = dict(entries)
            return Wiring(
                tuple(Feed((*base, name), name) for name in names),
                Call(tuple(Argument(values[name], name) for name in names)),
            )
        case TreeMapping():
            return _structure_finding(part, required, ends)
    return _count_finding(sum(1 for _ in leaves(part)), required, ends)


def _count_finding(given: int, required: list[ArgumentFact], ends: Edge) -> Finding:
    plural = "output" if given == 1 else "outputs"
    return Finding(
        Rule.INPUT_COUNT_DIFFERS,
        f"{ends.consumer} needs {len(required)} inputs and gets {given}",
        (Side(ends.producer, f"{given} {plural}"), Side(ends.consumer, f"{len(required)} inputs")),
        notes=(f"inputs of {ends.consumer}: {', '.join(argument.name for argument in required)}",),
    )


def _structure_finding(part: Tree, required: list[ArgumentFact], ends: Edge) -> Finding:
    wanted = ", ".join(argument.name for argument in required) or "nothing"
    if len(required) == 1:
        kind = _kind(required[0].type_name)
        wanted = (
            f"a {kind} ({required[0].type_name})"
            if kind in ("list", "tuple", "dict")
            else "a tensor"
        )
    ports = [selector(part, path) for path, _ in leaves(part) if path]
    return Finding(
        Rule.STRUCTURE_DIFFERS,
        f"{ends.producer} returns {describe_tree(part)} where {wanted} is taken",
        (Side(ends.producer, describe_tree(part)), Side(ends.consumer, wanted)),
        notes=(f"outputs to select from: {', '.join(ports)}",) if ports else (),
    )


def selector(part: Tree, path: KeyPath) -> str:
    """What `--select` calls a port, in the shortest way."""
    if (
        isinstance(part, TreeSequence)
        and part.names
        and len(path) == 1
        and isinstance(path[0], int)
    ):
        return part.names[path[0]]
    return str(path[0]) if len(path) == 1 else keystr(path)
