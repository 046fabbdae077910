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
    return f"part_{distinct.index(model)}"


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
        own = by_name.get(passed.name) if passed.name else arguments[number]
        if own is None:
            raise ValueError(f"the first part takes no argument {passed.name}")
        name = re.sub(r"\W", "_", own.name)
        if name in taken or keyword.iskeyword(name) or not name.isidentifier():
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
    head = "".join(f", {parameter.name}: {parameter.type_name}" for parameter in signature)
    passed = ", ".join(_argument(parameter.keyword, parameter.name) for parameter in signature)
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
    if name:
        return f"{name}={text}"
    return text


def _sequential_lines(blueprint: Sequential, passed: str) -> Iterator[str]:
    layers = itertools.count()
    for number, stage in enumerate(blueprint.stages):
        if number:
            previous = f"y{number - 1}"
            passed = ", ".join(_feed(feed, previous, layers) for feed in stage.feeds)
        yield f"y{number} = self.{part_name(blueprint, stage.model)}({passed})"
    yield f"return y{len(blueprint.stages) - 1}"


def _feed(feed: Feed, previous: str, layers: Iterator[int]) -> str:
    value = write_bridge(feed.bridge, previous + keystr(feed.path), layers)
    return _argument(feed.name, value)


def _parallel_lines(blueprint: Parallel, passed: str) -> Iterator[str]:
    layers = itertools.count()
    merged = list[str]()
    for number, branch in enumerate(blueprint.branches):
        value = write_bridge(branch.bridge, f"y{number}{keystr(branch.path)}", layers)
        yield f"y{number} = self.{part_name(blueprint, branch.model)}({passed})"
        yield f"z{number} = {value}"
        merged.append(f"z{number}")
    yield f"return {_merge_expression(merged, blueprint.merge, blueprint.dim)}"


def _merge_expression(names: list[str], merge: Merge, dim: int) -> str:
    items = ", ".join(names)
    match merge:
        case Merge.CAT:
            return f"torch.cat([{items}], {dim})"
        case Merge.STACK:
            return f"torch.stack([{items}], {dim})"
        case Merge.ADD:
            return " + ".join(names)
        case Merge.MEAN:
            return f"({' + '.join(names)}) / {len(names)}"
        case Merge.TUPLE:
            return f"({items})"
        case _:
            assert_never(merge)
