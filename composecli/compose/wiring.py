"""Wiring: the part of a producer's result that goes to each argument of the consumer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from composecli.core.blueprint import Feed, Settings
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
    leaves,
    port_names,
)
from composecli.core.rules import Rule

_CONTAINERS = ("list", "tuple", "dict")


@dataclass(frozen=True, slots=True)
class Wiring:
    """One feed for each argument of the consumer, and the call that they make of this result."""

    feeds: tuple[Feed, ...]
    call: Call


@dataclass(frozen=True, slots=True)
class Edge:
    """The names of the two models at a seam, and the values that are stated for the consumer."""

    producer: str
    consumer: str
    settings: Settings = ()


def wire(
    result: Tree, arguments: tuple[ArgumentFact, ...], selected: KeyPath, edge: Edge
) -> Wiring | Finding:
    """Return the consumer's call on a producer's result, or a finding if it cannot be made.

    `selected` is the path of the part to use; an empty path uses all of it.

        result                                       arguments              feeds
        float32[2, 5]                                x                      x: the tensor
        float32[2, 5]                                x, y                   CC101, too few outputs
        (float32[2, 5], float32[2, 7])               x, y                   x: [0], y: [1]
        (float32[2, 5], float32[2, 7])               x                      CC102, select one
        [float32[2, 5], float32[2, 7]]               xs: List[Tensor]       xs: the list
        {"y": float32[2, 5], "x": float32[2, 7]}     x, y                   x: ["x"], y: ["y"]
    """
    stated = {argument.name for argument in edge.settings}
    fed = tuple(argument for argument in arguments if argument.name not in stated)
    wiring = _wire_fed(result, fed, selected, edge)
    if isinstance(wiring, Finding) or not edge.settings:
        return wiring
    return _with_settings(wiring, fed, arguments, edge.settings)


def _with_settings(
    wiring: Wiring,
    fed: tuple[ArgumentFact, ...],
    arguments: tuple[ArgumentFact, ...],
    settings: Settings,
) -> Wiring:
    """Return the wiring with the stated values; feeds behind one of them are passed by name."""
    feeds = list(wiring.feeds)
    passed = list(wiring.call.arguments)
    for number, (feed, own) in enumerate(zip(wiring.feeds, fed, strict=False)):
        if feed.name is None and arguments[number] != own:
            feeds[number] = replace(feed, name=own.name)
            passed[number] = replace(passed[number], name=own.name)
    return Wiring(tuple(feeds), Call((*passed, *settings)))


def _wire_fed(
    result: Tree, arguments: tuple[ArgumentFact, ...], selected: KeyPath, edge: Edge
) -> Wiring | Finding:
    """Wire the arguments whose values are not stated."""
    part = get_path(result, selected)
    required = [argument for argument in arguments if argument.required]
    if len(required) > 1:
        if isinstance(part, TensorSpec):
            return _count_finding(1, required, edge)
        return _wire_items(result, required, selected, edge)
    if not _accepts(required, part):
        return _structure_finding(result, required, selected, edge)
    name = None
    if required:
        name = required[0].call_name
    feed = Feed(selected, name)
    call = Call((Argument(part, name),))
    return Wiring((feed,), call)


def _accepts(required: list[ArgumentFact], part: Tree) -> bool:
    """Return whether the annotation of the one required argument, if any, allows this part."""
    base = ""
    if required:
        base = _base_type(required[0].type_name)
    match part:
        case TensorSpec():
            return base not in _CONTAINERS
        case TreeSequence(kind) | TreeMapping(_, kind):
            return base == kind
        case _:
            return False


def _base_type(annotation: str) -> str:
    """Return `list` for `List[Tensor]` and for `typing.List[Tensor]`."""
    generic, _, _ = annotation.partition("[")
    _, _, name = generic.rpartition(".")
    return name.lower()


def _wire_items(
    result: Tree, required: list[ArgumentFact], base: KeyPath, edge: Edge
) -> Wiring | Finding:
    """Wire one item of the selected container to each argument: by position, or by name if any."""
    part = get_path(result, base)
    feeds = list[Feed]()
    arguments = list[Argument]()
    match part:
        case TreeSequence(_, items) if len(items) == len(required):
            for number, (item, argument) in enumerate(zip(items, required, strict=True)):
                path = (*base, number)
                feeds.append(Feed(path, argument.call_name))
                arguments.append(Argument(item, argument.call_name))
        case TreeMapping(entries):
            values = dict(entries)
            for argument in required:
                name = argument.name
                if name not in values:
                    return _structure_finding(result, required, base, edge)
                feed = Feed((*base, name), name)
                feeds.append(feed)
                arguments.append(Argument(values[name], name))
        case _:
            tensors = list(leaves(part))
            return _count_finding(len(tensors), required, edge)
    call = Call(tuple(arguments))
    return Wiring(tuple(feeds), call)


def _count_finding(count: int, required: list[ArgumentFact], edge: Edge) -> Finding:
    """Return the finding that the consumer does not need `count` inputs."""
    needed = f"{len(required)} inputs"
    title = f"{edge.consumer} needs {needed} but receives {count}"
    noun = "outputs"
    if count == 1:
        noun = "output"
    producer = Side(edge.producer, f"{count} {noun}")
    consumer = Side(edge.consumer, needed)
    names = ", ".join(argument.name for argument in required)
    note = f"inputs of {edge.consumer}: {names}"
    return Finding(Rule.INPUT_COUNT_DIFFERS, title, (producer, consumer), notes=(note,))


def _structure_finding(
    result: Tree, required: list[ArgumentFact], selected: KeyPath, edge: Edge
) -> Finding:
    """Return the finding about a wrong container, with the ports to select from."""
    part = get_path(result, selected)
    returned = describe_tree(part)
    wanted = _describe_wanted(required)
    title = f"{edge.producer} returns {returned} where {wanted} is expected"
    producer = Side(edge.producer, returned)
    consumer = Side(edge.consumer, wanted)
    notes = list[str]()
    names = port_names(result)
    selectors = [names[path] for path, _ in leaves(part, selected) if path]
    if selectors:
        ports = ", ".join(selectors)
        notes.append(f"outputs to select from: {ports}")
    return Finding(Rule.STRUCTURE_DIFFERS, title, (producer, consumer), notes=tuple(notes))


def _describe_wanted(required: list[ArgumentFact]) -> str:
    """Return the names of several arguments, or the type of the only one, as text."""
    if len(required) != 1:
        names = ", ".join(argument.name for argument in required)
        return names or "nothing"
    type_name = required[0].type_name
    base = _base_type(type_name)
    if base not in _CONTAINERS:
        return "a tensor"
    return f"a {base} ({type_name})"
