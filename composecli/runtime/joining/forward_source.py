"""The TorchScript source of a joined module's forward."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from composecli.core.blueprint import Blueprint, Feed, Merge, Parallel, Sequential, models
from composecli.core.facts import ArgumentFact
from composecli.core.pytree import Call, keystr
from composecli.runtime.bridge_steps import write_bridge


def part_name(blueprint: Blueprint, model: int) -> str:
    """Return the attribute that holds a model. A model that is used twice is held once."""
    distinct = list(dict.fromkeys(models(blueprint)))
    number = distinct.index(model)
    return f"part_{number}"


@dataclass(frozen=True)
class Parameter:
    """One parameter of the joined forward; `keyword` is its name in the call if it has one."""

    name: str
    type_name: str
    keyword: str | None


def joined_signature(arguments: tuple[ArgumentFact, ...], call: Call) -> tuple[Parameter, ...]:
    """Return the parameters of the joined forward: those arguments of the first part in the call.

    Raises:
        ValueError: if the call names an argument that the first part does not have.
    """
    by_name = {argument.name: argument for argument in arguments}
    parameters = list[Parameter]()
    taken = {"self"}
    for number, passed in enumerate(call.arguments):
        own: ArgumentFact | None = None
        if passed.name:
            own = by_name.get(passed.name)
        else:
            own = arguments[number]
        if own is None:
            raise ValueError(f"the first part takes no argument {passed.name}")
        name = re.sub(r"\W", "_", own.name)
        is_usable = name.isidentifier() and not keyword.iskeyword(name)
        if name in taken or not is_usable:
            name = f"input_{number}"
        taken.add(name)
        parameters.append(Parameter(name, own.type_name, passed.name))
    return tuple(parameters)


def forward_source(blueprint: Blueprint, signature: tuple[Parameter, ...]) -> str:
    """Return the TorchScript source of the joined forward.

    Two models of which the second takes the first output of the first, flattened:

        def forward(self, x: Tensor):
            y0 = self.part_0(x)
            y1 = self.part_1(torch.flatten(y0[0], 1))
            return y1
    """
    declared = list[str]()
    arguments = list[str]()
    for parameter in signature:
        declared.append(f", {parameter.name}: {parameter.type_name}")
        arguments.append(_argument(parameter.keyword, parameter.name))
    head = "".join(declared)
    passed = ", ".join(arguments)
    match blueprint:
        case Sequential():
            lines = list(_sequential_lines(blueprint, passed))
        case Parallel():
            lines = list(_parallel_lines(blueprint, passed))
        case _:
            assert_never(blueprint)
    header = f"def forward(self{head}):"
    body = [f"    {line}" for line in lines]
    return "\n".join([header, *body, ""])


def _argument(name: str | None, text: str) -> str:
    """Return an argument as it is written in a call, with `name=` if it has a name."""
    if name:
        return f"{name}={text}"
    return text


def _sequential_lines(blueprint: Sequential, passed: str) -> Iterator[str]:
    """Yield the body of the forward: each part takes values of the one before it."""
    layers = itertools.count()
    for number, stage in enumerate(blueprint.stages):
        if number:
            previous = f"y{number - 1}"
            feeds = [_feed(feed, previous, layers) for feed in stage.feeds]
            passed = ", ".join(feeds)
        part = part_name(blueprint, stage.model)
        yield f"y{number} = self.{part}({passed})"
    last = len(blueprint.stages) - 1
    yield f"return y{last}"


def _feed(feed: Feed, previous: str, layers: Iterator[int]) -> str:
    """Return the argument that takes a part of `previous` over a bridge."""
    source = previous + keystr(feed.path)
    value = write_bridge(feed.bridge, source, layers)
    return _argument(feed.name, value)


def _parallel_lines(blueprint: Parallel, passed: str) -> Iterator[str]:
    """Yield the body of the forward: each part takes the input, and the results are merged."""
    layers = itertools.count()
    merged = list[str]()
    for number, branch in enumerate(blueprint.branches):
        source = f"y{number}{keystr(branch.path)}"
        value = write_bridge(branch.bridge, source, layers)
        part = part_name(blueprint, branch.model)
        yield f"y{number} = self.{part}({passed})"
        yield f"z{number} = {value}"
        merged.append(f"z{number}")
    result = _merge_expression(merged, blueprint.merge, blueprint.dim)
    yield f"return {result}"


def _merge_expression(names: list[str], merge: Merge, dim: int) -> str:
    """Return the expression that merges variables; only `cat` and `stack` use `dim`."""
    items = ", ".join(names)
    total = " + ".join(names)
    match merge:
        case Merge.CAT:
            return f"torch.cat([{items}], {dim})"
        case Merge.STACK:
            return f"torch.stack([{items}], {dim})"
        case Merge.ADD:
            return total
        case Merge.MEAN:
            return f"({total}) / {len(names)}"
        case Merge.TUPLE:
            return f"({items})"
        case _:
            assert_never(merge)
