"""A program of torch.export, run op by op as its archive says it: torch.export itself takes as long to import as torch.

Source of the format: `torch/_export/serde/schema.py`, schema major version 8.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten, treespec_loads

from composecli.files.pt2 import DTYPE_CODES
from composecli.runtime.pt2.guards import Guards

SCHEMA = 8
_KEYWORD = 2
_MEMORY_FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip
_STRIDED = 7
_PLAIN = (
    "as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_strings", "as_int_lists",
    "as_float_lists",
)  # fmt: skip
Values = dict[str, Any]


class Unsupported(Exception):
    """The program says something that is not run here; torch.export can."""


@dataclass(frozen=True)
class LiftedTensor:
    """Where a lifted tensor is held: the submodule and attribute that its name says, and the value that it is."""

    value: str
    module: str
    attribute: str
    parameter: bool


@dataclass(frozen=True)
class _Node:
    """One op: how to call it, and how its result gets names. `last` are values that nothing asks for after it."""

    call: Callable[..., Any]
    arguments: tuple[Callable[[Values], Any], ...]
    keywords: Mapping[str, Callable[[Values], Any]]
    names: Callable[[Any, Values], None]
    last: tuple[str, ...] = ()


class Program(nn.Module):  # type: ignore[misc]
    """Its parameters and buffers are held by the names that the exported module had for them."""

    def __init__(self, data: Any, device: str) -> None:
        super().__init__()
        if data["schema_version"]["major"] != SCHEMA:
            raise Unsupported("another version of the schema")
        graph, signature = data["graph_module"]["graph"], data["graph_module"]["signature"]
        call = data["graph_module"]["module_call_graph"][0]["signature"]
        self._in_spec, self._out_spec = (
            treespec_loads(call["in_spec"]),
            treespec_loads(call["out_spec"]),
        )
        self.argument_names = tuple(
            _argument_names(self._in_spec, call.get("forward_arg_names") or [])
        )
        reader = _Reader(device)
        self._written = tuple(_mutations(signature))
        kept = {
            *_named(signature["output_specs"]),
            *(name for pair in self._written for name in pair),
        }
        self._nodes = tuple(_with_last(graph["nodes"], map(reader.node, graph["nodes"]), kept))
        self.places = tuple(_places(signature["input_specs"]))
        self._inputs = tuple(_user_inputs(signature["input_specs"]))
        self._guards = Guards(data, self._inputs)
        self._outputs = tuple(
            reader.value(_one(spec["user_output"])) for spec in _kind(signature, "user_output")
        )

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        ordered = {name: keywords[name] for name in self._keywords() if name in keywords}
        if ordered.keys() != keywords.keys():
            raise TypeError(
                f"the program takes no {', '.join(sorted(keywords.keys() - ordered.keys()))}"
            )
        given, spec = tree_flatten((arguments, ordered))
        if spec != self._in_spec:
            raise ValueError(
                f"the input has another structure than the program takes: {spec}, not {self._in_spec}"
            )
        values = {
            place.value: getattr(self.get_submodule(place.module), place.attribute)
            for place in self.places
        }
        values.update(zip(self._inputs, given, strict=True))
        self._guards.check(values, arguments, ordered)
        for node in self._nodes:
            result = node.call(
                *(argument(values) for argument in node.arguments),
                **{name: argument(values) for name, argument in node.keywords.items()},
            )
            node.names(result, values)
            for name in node.last:
                values.pop(name, None)
        for target, value in self._written:
            values[target].copy_(values[value])
        return tree_unflatten([output(values) for output in self._outputs], self._out_spec)

    def _keywords(self) -> list[str]:
        return list(self._in_spec.children()[1].context or [])


def _with_last(said: Sequence[Any], nodes: Iterable[_Node], kept: set[str]) -> Iterator[_Node]:
    """Each node with the values that can go after it: all of a forward's together may not have room."""
    last = dict[str, int]()
    for number, node in enumerate(said):
        last.update(dict.fromkeys((*_named(node["inputs"]), *_named(node["outputs"])), number))
    ends = dict[int, list[str]]()
    for name, number in last.items():
        if name not in kept:
            ends.setdefault(number, []).append(name)
    for number, node in enumerate(nodes):
        yield replace(node, last=tuple(ends.get(number, ())))


def _named(held: Any) -> Iterator[str]:
    """The values that a part of the program names."""
    if isinstance(held, dict):
        for key, value in held.items():
            if key in ("name", "as_name") and isinstance(value, str):
                yield value
            else:
                yield from _named(value)
    elif isinstance(held, list):
        for item in held:
            yield from _named(item)


def _argument_names(spec: TreeSpec, names: Sequence[str]) -> Iterator[str]:
    positional, named = spec.children()
    count = len(positional.children())
    yield from names[:count]
    yield from (f"input {number}" for number in range(len(names), count))
    yield from named.context or []


def _one(spec: Any) -> Any:
    return spec["arg"]


def _kind(signature: Any, kind: str) -> list[Any]:
    others = [key for spec in signature["output_specs"] for key in spec if key not in _OUTPUTS]
    if others:
        raise Unsupported(f"an output of the kind {others[0]}")
    return [spec for spec in signature["output_specs"] if kind in spec]


_OUTPUTS = ("user_output", "buffer_mutation", "user_input_mutation")


def _places(specs: Any) -> Iterator[LiftedTensor]:
    for spec in specs:
        ((kind, held),) = spec.items()
        name = held.get(
            {"parameter": "parameter_name", "buffer": "buffer_name"}.get(
                kind, "tensor_constant_name"
            )
        )
        if kind in ("parameter", "buffer", "tensor_constant"):
            module, _, attribute = str(name).rpartition(".")
            yield LiftedTensor(held["arg"]["name"], module, attribute, kind == "parameter")
        elif kind not in ("user_input", "constant_input"):
            raise Unsupported(f"an input of the kind {kind}")


def _user_inputs(specs: Any) -> Iterator[str]:
    """The name of each leaf of the input, in order; that of a constant is its own."""
    for spec in specs:
        if "user_input" in spec:
            argument = spec["user_input"]["arg"]
            held = argument.get("as_tensor") or argument.get("as_sym_int") or {}
            yield str(held.get("name") or held.get("as_name") or f"constant {id(spec)}")
        elif "constant_input" in spec:
            yield str(spec["constant_input"]["name"])


def _mutations(signature: Any) -> Iterator[tuple[str, str]]:
    """What is written back at the end: the value it goes to, and the one it is."""
    buffers = {
        spec["buffer"]["buffer_name"]: spec["buffer"]["arg"]["name"]
        for spec in signature["input_specs"]
        if "buffer" in spec
    }
    for spec in _kind(signature, "buffer_mutation"):
        held = spec["buffer_mutation"]
        yield buffers[held["buffer_name"]], held["arg"]["name"]
    for spec in _kind(signature, "user_input_mutation"):
        held = spec["user_input_mutation"]
        yield held["user_input_name"], held["arg"]["name"]


@dataclass(frozen=True)
class _Reader:
    """Makes what runs of what the archive says. Devices are the one that the model is loaded on."""

    device: str

    def node(self, node: Any) -> _Node:
        target = _target(node["target"])
        keywords, arguments = dict[str, Callable[[Values], Any]](), list[Callable[[Values], Any]]()
        for given in node["inputs"]:
            value = self.value(given["arg"])
            if given.get("kind") == _KEYWORD:
                keywords[given["name"]] = value
            elif given.get("kind") is None:
                raise Unsupported("arguments of an older schema")
            else:
                arguments.append(value)
        return _Node(target, tuple(arguments), keywords, _names(node["outputs"]))

    def value(self, argument: Any) -> Callable[[Values], Any]:
        ((kind, held),) = argument.items()
        if kind in _PLAIN:
            return lambda _: held
        if kind == "as_none":
            return lambda _: None
        if kind in ("as_tensor", "as_optional_tensor", "as_sym_int", "as_sym_bool", "as_sym_float"):
            return _reference(held)
        if kind in (
            "as_tensors",
            "as_optional_tensors",
            "as_sym_ints",
            "as_sym_bools",
            "as_sym_floats",
        ):
            references = [_reference(item) for item in held]
            return lambda values: [reference(values) for reference in references]
        constant = self._constant(kind, held)
        return lambda _: constant

    def _constant(self, kind: str, held: Any) -> Any:
        if kind == "as_device":
            return torch.device(self.device)
        if kind == "as_scalar_type" and held in DTYPE_CODES:
            return getattr(torch, DTYPE_CODES[held])
        if kind == "as_memory_format" and held in _MEMORY_FORMATS:
            return _MEMORY_FORMATS[held]
        if kind == "as_layout" and held == _STRIDED:
            return torch.strided
        if kind == "as_complex":
            return complex(held["real"], held["imag"])
        raise Unsupported(f"an argument of the kind {kind}")


def _reference(held: Any) -> Callable[[Values], Any]:
    """A value by its name, or a number in the place of one."""
    if "as_tensor" in held or "as_none" in held:
        return _reference(held["as_tensor"]) if held.get("as_tensor") else lambda _: None
    name = held.get("name") or held.get("as_name")
    if name is not None:
        return lambda values: values[name]
    ((_, number),) = held.items()
    return lambda _: number


def _names(outputs: Any) -> Callable[[Any, Values], None]:
    """Gives a result its names: one, one for each of several, or one for each tensor of a list."""
    if len(outputs) == 1:
        ((kind, held),) = outputs[0].items()
        if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints"):
            many = [_name(item) for item in held]
            return lambda result, values: values.update(zip(many, result, strict=True))
        name = _name(held) if kind != "as_none" else ""
        return lambda result, values: values.update({name: result})
    names = [_name(next(iter(output.values()))) for output in outputs]
    return lambda result, values: values.update(zip(names, result, strict=True)) if names else None


def _name(held: Any) -> str:
    if not isinstance(held, dict):
        return ""
    if "as_tensor" in held:
        return _name(held["as_tensor"])
    return str(held.get("name") or held.get("as_name") or "")


def _target(text: str) -> Callable[..., Any]:
    """The op; what may be named here was judged before."""
    library, _, name = text.rpartition(".")
    if library == "_operator":
        return getattr(operator, name)  # type: ignore[no-any-return]
    if library == "math":
        return getattr(math, name)  # type: ignore[no-any-return]
    if library == "torch":
        return getattr(torch, name)  # type: ignore[no-any-return]
    steps = text.split(".")
    if steps[:2] != ["torch", "ops"] or "higher_order" in steps or len(steps) != 5:
        raise Unsupported(f"the op {text}")
    found: Any = torch.ops
    for step in steps[2:]:
        found = getattr(found, step)
    return found  # type: ignore[no-any-return]
