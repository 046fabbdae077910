"""The TorchScript source of a joined module's forward."""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from composecli.core.blueprint import (
    Blueprint,
    Feed,
    Merge,
    Parallel,
    Sequential,
    models,
    settings_of,
)
from composecli.core.facts import ArgumentFact
from composecli.core.pytree import (
    Call,
    KeyPath,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
)
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


@dataclass(frozen=True)
class FlatResult:
    """A part of a result, written with the tensors that a traced part returns in a tuple.

    `first` is the number of its first tensor.
    """

    tree: Tree
    first: int

    def text(self, variable: str) -> str:
        """Return the expression; objects that TorchScript does not have become None.

        `{"logits": y0[0], "loss": None}`
        """
        numbers = itertools.count(self.first)
        return _tree_text(self.tree, variable, numbers)


@dataclass(frozen=True)
class PartForm:
    """How the source calls a part and reads its result.

    A part that was scripted takes arguments and returns values as in Python. One that was traced
    takes the arguments by position, without the plain values in `fixed`, by number. `flat` has the
    parts of its result if it returns only tensors.
    """

    by_position: bool = False
    without_gradients: bool = False
    fixed: Mapping[int, Literal] = field(default_factory=dict)
    flat: Mapping[KeyPath, FlatResult] = field(default_factory=dict)

    def call(
        self, variable: str, part: str, arguments: list[tuple[str | None, str]]
    ) -> Iterator[str]:
        """Yield the lines that assign the result of a call, given names and expressions."""
        passed = self._passed(arguments)
        line = f"{variable} = self.{part}({passed})"
        if self.without_gradients:
            yield "with torch.no_grad():"
            line = f"    {line}"
        yield line

    def _passed(self, arguments: list[tuple[str | None, str]]) -> str:
        """Return the text between the parentheses of a call."""
        texts = list[str]()
        for number, (name, text) in enumerate(arguments):
            if not self.by_position:
                texts.append(_argument(name, text))
            elif number not in self.fixed:
                texts.append(text)
        return ", ".join(texts)

    def assertions(self, arguments: list[tuple[str | None, str]]) -> Iterator[str]:
        """Yield a statement for each value that the trace has made constant."""
        for number, literal in self.fixed.items():
            _, text = arguments[number]
            if text == _literal_text(literal):
                continue
            operator = "=="
            if literal.value is None:
                operator = "is"
            value = _literal_text(literal)
            yield f'assert {text} {operator} {value}, "it was traced with another value"'

    def result(self, variable: str, path: KeyPath) -> str:
        """Return the expression of a part of the result."""
        if path in self.flat:
            return self.flat[path].text(variable)
        subscripts = "".join(f"[{_step_text(step)}]" for step in path)
        return variable + subscripts


_AS_IN_PYTHON = PartForm()
_ESCAPES = {code: f"\\{code:03o}" for code in (*range(32), 127)}
_ESCAPES.update({ord('"'): '\\"', ord("\\"): "\\\\"})
Forms = Mapping[int, PartForm]


def joined_signature(arguments: tuple[ArgumentFact, ...], call: Call) -> tuple[Parameter, ...]:
    """Return the parameters of the joined forward: those arguments of the first part in the call.

    Raises:
        ValueError: if the call passes an argument that the first part does not have.
    """
    by_name = {argument.name: argument for argument in arguments}
    in_order = iter(arguments)
    parameters = list[Parameter]()
    taken = {"self"}
    for number, passed in enumerate(call.arguments):
        own: ArgumentFact | None = None
        if passed.name:
            own = by_name.get(passed.name)
        else:
            own = next(in_order, None)
        if own is None:
            named = passed.name or f"number {number}"
            raise ValueError(f"the first part takes no argument {named}")
        name = re.sub(r"\W", "_", own.name)
        is_usable = name.isidentifier() and not keyword.iskeyword(name)
        if name in taken or not is_usable:
            name = f"input_{number}"
        taken.add(name)
        parameters.append(Parameter(name, own.type_name, passed.name))
    return tuple(parameters)


def forward_source(
    blueprint: Blueprint, signature: tuple[Parameter, ...], forms: Forms | None = None
) -> str:
    """Return the TorchScript source of the joined forward.

    `forms` has the parts that are not called as in Python. Two models of which the second takes the
    first output of the first, flattened:

        def forward(self, x: Tensor):
            y0 = self.part_0(x)
            y1 = self.part_1(torch.flatten(y0[0], 1))
            return y1
    """
    passed = [(parameter.keyword, parameter.name) for parameter in signature]
    source = _Source(blueprint, forms or {})
    match blueprint:
        case Sequential():
            lines = list(source.sequential_lines(blueprint, passed))
        case Parallel():
            lines = list(source.parallel_lines(blueprint, passed))
        case _:
            assert_never(blueprint)
    return _function(signature, lines)


def single_call_source(
    signature: tuple[Parameter, ...], form: PartForm, results: Mapping[KeyPath, Tree]
) -> str:
    """Return the source of a forward that calls `part` alone, and returns parts of its result.

    Where these are tensors it is annotated, so that it compiles only if TorchScript agrees:

        def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
            y = self.part(x)
            return (y[0], y[1],)
    """
    passed = [(parameter.keyword, parameter.name) for parameter in signature]
    texts = [form.result("y", path) for path in results]
    returned = _tuple_text(texts)
    lines = [*form.call("y", "part", passed), f"return {returned}"]
    annotation = ""
    if all(isinstance(tree, TensorSpec) for tree in results.values()):
        types = ", ".join("Tensor" for _ in results)
        annotation = f" -> Tuple[{types}]"
    return _function(signature, lines, annotation)


def _function(signature: tuple[Parameter, ...], lines: list[str], annotation: str = "") -> str:
    """Return the source of a forward with this signature and body."""
    declared = [f", {parameter.name}: {parameter.type_name}" for parameter in signature]
    head = "".join(declared)
    body = [f"    {line}" for line in lines]
    return "\n".join([f"def forward(self{head}){annotation}:", *body, ""])


def _argument(name: str | None, text: str) -> str:
    """Return an argument as it is written in a call, with `name=` if it has a name."""
    if name:
        return f"{name}={text}"
    return text


@dataclass(frozen=True)
class _Source:
    """The lines of a joined forward."""

    blueprint: Blueprint
    forms: Forms

    def sequential_lines(
        self, blueprint: Sequential, passed: list[tuple[str | None, str]]
    ) -> Iterator[str]:
        """Yield the body of the forward: each part takes values of the one before it."""
        layers = itertools.count()
        result = ""
        for number, stage in enumerate(blueprint.stages):
            if number:
                before = blueprint.stages[number - 1].model
                feeds = stage.feeds
                passed = [self._feed(feed, before, number - 1, layers) for feed in feeds]
            yield from self._call(number, stage.model, passed)
            result = self._form(stage.model).result(f"y{number}", ())
        yield f"return {result}"

    def parallel_lines(
        self, blueprint: Parallel, passed: list[tuple[str | None, str]]
    ) -> Iterator[str]:
        """Yield the body of the forward: each part takes the input, and the results are merged."""
        layers = itertools.count()
        merged = list[str]()
        for number, branch in enumerate(blueprint.branches):
            yield from self._call(number, branch.model, passed)
            source = self._form(branch.model).result(f"y{number}", branch.path)
            value = write_bridge(branch.bridge, source, layers)
            yield f"z{number} = {value}"
            merged.append(f"z{number}")
        result = _merge_expression(merged, blueprint.merge, blueprint.dim)
        yield f"return {result}"

    def _form(self, model: int) -> PartForm:
        """Return how a model is called."""
        return self.forms.get(model, _AS_IN_PYTHON)

    def _call(self, number: int, model: int, passed: list[tuple[str | None, str]]) -> Iterator[str]:
        """Yield the lines that call a model."""
        form = self._form(model)
        settings = dict(self._settings(number))
        shared = [(name, text) for name, text in passed if name not in settings]
        passed = [*shared, *settings.items()]
        yield from form.assertions(passed)
        part = part_name(self.blueprint, model)
        yield from form.call(f"y{number}", part, passed)

    def _settings(self, number: int) -> Iterator[tuple[str | None, str]]:
        """Yield the arguments of a model whose values are stated, and built in."""
        for argument in settings_of(self.blueprint, number):
            if isinstance(argument.value, Literal):
                yield argument.name, _literal_text(argument.value)

    def _feed(
        self, feed: Feed, model: int, number: int, layers: Iterator[int]
    ) -> tuple[str | None, str]:
        """Return the argument that takes a part of a model's result over a bridge."""
        source = self._form(model).result(f"y{number}", feed.path)
        return feed.name, write_bridge(feed.bridge, source, layers)


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


def _tree_text(tree: Tree, variable: str, numbers: Iterator[int]) -> str:
    """Return the expression of a tree whose tensors are items of a variable, in order."""
    match tree:
        case TensorSpec():
            return f"{variable}[{next(numbers)}]"
        case Literal():
            return _literal_text(tree)
        case TreeSequence(kind, items):
            texts = [_tree_text(item, variable, numbers) for item in items]
            if kind == "list":
                return f"[{', '.join(texts)}]"
            return _tuple_text(texts)
        case TreeMapping(entries):
            pairs = list[str]()
            for key, item in entries:
                value = _tree_text(item, variable, numbers)
                pairs.append(f"{_quoted(key)}: {value}")
            inner = ", ".join(pairs)
            return "{" + inner + "}"
        case Opaque():
            return "None"
        case _:
            assert_never(tree)


def _tuple_text(texts: list[str]) -> str:
    """Return a tuple of expressions."""
    items = "".join(f"{text}, " for text in texts)
    return f"({items.rstrip(' ')})"


def _literal_text(literal: Literal) -> str:
    """Return a plain value as source. Infinity and NaN have no literal."""
    value = literal.value
    if isinstance(value, float) and repr(value) in ("inf", "-inf", "nan"):
        return f"float('{value}')"
    if isinstance(value, str):
        return _quoted(value)
    return repr(value)


def _step_text(step: int | str) -> str:
    """Return an index or a key as source."""
    if isinstance(step, str):
        return _quoted(step)
    return str(step)


def _quoted(text: str) -> str:
    """Return a text as a literal of TorchScript, which has octal escapes, and none of Unicode."""
    escaped = text.translate(_ESCAPES)
    return f'"{escaped}"'
