"""The ops of an exported program, read from its JSON as calls that run on values by name."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import torch
from torch._ops import OpOverload

from composecli.core.dtypes import by_schema_code
from composecli.files.pt2_layout import parse_floats
from composecli.runtime.pt2 import arithmetic
from composecli.runtime.pt2.schema import (
    KEYWORD_ARGUMENT,
    STRIDED_LAYOUT,
    Argument,
    ComplexValue,
    Node,
    Reference,
)
from composecli.runtime.pt2.traced_ops import run_traced

# The values of a graph by name, while it runs.
Environment: TypeAlias = dict[str, Any]
Getter: TypeAlias = Callable[[Environment], Any]
Setter: TypeAlias = Callable[[Any, Environment], None]

_MEMORY_FORMATS = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
_FUNCTIONS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "_operator": arithmetic.OPERATOR,
    "math": arithmetic.MATH,
    "torch": arithmetic.SYMBOLIC,
}
_LITERALS = (
    "as_int", "as_ints", "as_bool", "as_bools", "as_string", "as_strings", "as_int_lists",
)  # fmt: skip
_FLOATS = ("as_float", "as_floats", "as_float_lists")
_REFERENCES = ("as_tensor", "as_optional_tensor", "as_sym_int", "as_sym_bool", "as_sym_float")
_REFERENCE_LISTS = (
    "as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats",
)  # fmt: skip
_RESULT_LISTS = ("as_tensors", "as_optional_tensors", "as_sym_ints")


class Unsupported(Exception):
    """The program has a part that only torch.export can run."""


@dataclass(frozen=True)
class Call:
    """One op: its function, its arguments, and the names of its results.

    `last_used` are the values that no later op needs.
    """

    target: Callable[..., Any]
    arguments: tuple[Getter, ...]
    keywords: Mapping[str, Getter]
    store: Setter
    last_used: tuple[str, ...]

    def run(self, values: Environment) -> None:
        """Run the op on `values`, add its results, and remove the values that are used up."""
        arguments = [get(values) for get in self.arguments]
        keywords = {name: get(values) for name, get in self.keywords.items()}
        if torch.jit.is_tracing():
            result = run_traced(self.target, arguments, keywords)
        else:
            result = self.target(*arguments, **keywords)
        self.store(result, values)
        for name in self.last_used:
            values.pop(name, None)


def read_nodes(nodes: Sequence[Node], device: str, kept: set[str]) -> Iterator[Call]:
    """Yield the ops of a graph in order. All devices in them become `device`.

    Each op releases the values that it uses last, other than those in `kept`: all values of a
    forward together may not fit into memory.

    Raises:
        Unsupported: if an op or an argument is of a kind that is not run here.
    """
    reader = ArgumentReader(device)
    last_used = _last_used(nodes, kept)
    for number, node in enumerate(nodes):
        target = _resolve(node["target"])
        arguments = list[Getter]()
        keywords = dict[str, Getter]()
        for argument in node["inputs"]:
            getter = reader.read(argument["arg"])
            kind = argument.get("kind")
            if kind is None:
                raise Unsupported("arguments of an older schema")
            if kind == KEYWORD_ARGUMENT:
                keywords[argument["name"]] = getter
            else:
                arguments.append(getter)
        store = _read_results(node["outputs"])
        released = tuple(last_used.get(number, ()))
        yield Call(target, tuple(arguments), keywords, store, released)


def _last_used(nodes: Sequence[Node], kept: set[str]) -> Mapping[int, list[str]]:
    """Return, by the number of a node, the values that are used there for the last time."""
    last_node = dict[str, int]()
    for number, node in enumerate(nodes):
        arguments = [argument["arg"] for argument in node["inputs"]]
        for name in names_in(arguments):
            last_node[name] = number
        for name in names_in(node["outputs"]):
            last_node[name] = number
    last_used = dict[int, list[str]]()
    for name, number in last_node.items():
        if name not in kept:
            last_used.setdefault(number, []).append(name)
    return last_used


def names_in(json: object) -> Iterator[str]:
    """Yield the names of all values inside a JSON value of the program."""
    if isinstance(json, dict):
        for key, value in json.items():
            if key in ("name", "as_name") and isinstance(value, str):
                yield value
            else:
                yield from names_in(value)
    elif isinstance(json, list):
        for item in json:
            yield from names_in(item)


@dataclass(frozen=True)
class ArgumentReader:
    """Reads arguments of ops. Every device in them becomes `device`, where the model is loaded."""

    device: str

    def read(self, argument: Argument) -> Getter:
        """Return a function that gets the value of an argument while the graph runs.

        Raises:
            Unsupported: if it is of a kind that is not known here.
        """
        ((kind, value),) = argument.items()
        if kind in _FLOATS:
            return _constant(parse_floats(value))
        if kind in _LITERALS:
            return _constant(value)
        if kind in _REFERENCES:
            return _lookup(cast(Reference, value))
        if kind in _REFERENCE_LISTS:
            references = cast(list[Reference], value)
            lookups = [_lookup(reference) for reference in references]
            return lambda values: [lookup(values) for lookup in lookups]
        return _constant(self._object(kind, value))

    def _object(self, kind: str, value: object) -> Any:
        """Return a value that JSON has no form for: None, a device, a dtype, a complex number."""
        match kind:
            case "as_none":
                return None
            case "as_device":
                return torch.device(self.device)
            case "as_scalar_type":
                dtype = by_schema_code(cast(int, value))
                if dtype is not None:
                    return getattr(torch, dtype.name)
            case "as_memory_format":
                if value in _MEMORY_FORMATS:
                    return _MEMORY_FORMATS[value]
            case "as_layout":
                if value == STRIDED_LAYOUT:
                    return torch.strided
            case "as_complex":
                number = cast(ComplexValue, value)
                return complex(number["real"], number["imag"])
        raise Unsupported(f"an argument of the kind {kind}")


def _constant(value: object) -> Getter:
    """Return a function that gets the same value from any environment."""
    return lambda _: value


def _lookup(reference: Reference) -> Getter:
    """Return a function that gets the value of a name, or the number or None that is stated."""
    if "as_tensor" in reference or "as_none" in reference:
        tensor = reference.get("as_tensor")
        if not tensor:
            return _constant(None)
        return _lookup(cast(Reference, tensor))
    # The key differs between tensors and symbolic sizes.
    name = reference.get("name") or reference.get("as_name")
    if name is not None:
        return operator.itemgetter(name)
    ((kind, number),) = reference.items()
    if kind in _FLOATS:
        return _constant(parse_floats(number))
    return _constant(number)


def _read_results(outputs: Sequence[Argument]) -> Setter:
    """Return a function that stores the results of an op: one, several, or a list's items."""
    if len(outputs) != 1:
        results = [_name_of(value) for output in outputs for value in output.values()]
        if not results:
            return _store_nothing
        return _store_each(results)
    ((kind, value),) = outputs[0].items()
    if kind in _RESULT_LISTS:
        items = cast(list[object], value)
        names = [_name_of(item) for item in items]
        return _store_each(names)
    name = ""
    if kind != "as_none":
        name = _name_of(value)
    return lambda result, values: values.update({name: result})


def _store_each(names: list[str]) -> Setter:
    """Return a function that stores as many results under these names."""
    return lambda result, values: values.update(zip(names, result, strict=True))


def _store_nothing(_result: Any, _values: Environment) -> None:
    """Drop the result of an op without outputs."""


def _name_of(value: object) -> str:
    """Return the name of a result; empty if it has none."""
    if not isinstance(value, dict):
        return ""
    if "as_tensor" in value:
        return _name_of(value["as_tensor"])
    name = value.get("name") or value.get("as_name")
    return str(name or "")


def _resolve(target: str) -> Callable[..., Any]:
    """Return the function with this name. The safety check of the file has allowed it.

    Raises:
        Unsupported: if it is neither arithmetic nor an overload of an op.
    """
    module, _, name = target.rpartition(".")
    if module in _FUNCTIONS:
        if name not in _FUNCTIONS[module]:
            raise Unsupported(f"the function {target}")
        return _FUNCTIONS[module][name]
    steps = target.split(".")
    is_op = steps[:2] == ["torch", "ops"] and len(steps) == 5
    if not is_op or "higher_order" in steps:
        raise Unsupported(f"the op {target}")
    op: object = torch.ops
    for step in steps[2:]:
        op = getattr(op, step)
    if not isinstance(op, OpOverload):
        raise Unsupported(f"the op {target}")
    return cast(Callable[..., Any], op)
