"""Where the values of TorchScript code come from: whether one is sure to be a member of an enum.

A value is followed back through branches, loops, attributes and calls to constants and to what
PyTorch itself gives, such as the dtype of a tensor. A value that is computed is a member of none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from composecli.runtime.enum_arguments import (
    READS_NO_DTYPE,
    Enum,
    enum_arguments,
    enum_of_result,
    has_enums,
)

_CALLS = frozenset(("prim::CallFunction", "prim::CallMethod"))
_UNCHANGED = frozenset(
    ("prim::unchecked_cast", "prim::unchecked_unwrap_optional", "aten::_unwrap_optional")
)
# Ops whose schemas do not say that they return a member of this enum.
_SOURCES = {"prim::dtype": "ScalarType", "prim::layout": "Layout"}
# PyTorch calls it with what is stored.
_LOADING = "__setstate__"


class _Place(NamedTuple):
    """A value, and the qualified name of the function whose graph it is in."""

    function: str
    value: Any


class _Call(NamedTuple):
    """A node that calls a function, and the qualified name of the function that it is in."""

    function: str
    node: Any


@dataclass(frozen=True)
class _Uses:
    """The calls by the name of what is called, and the values assigned to attributes by name.

    What calls a method of an interface names no class: it is under `.method`.
    """

    calls: dict[str, list[_Call]] = field(default_factory=lambda: defaultdict(list))
    assigned: dict[str, list[_Place]] = field(default_factory=lambda: defaultdict(list))


class Origins:
    """The compiled functions of an archive, and the integers in its objects by attribute name.

    PyTorch itself calls hooks: if it `has_hooks`, nothing is known of the arguments of a method.
    """

    def __init__(
        self,
        functions: Iterable[Any],
        stored: Mapping[str, frozenset[int]],
        *,
        has_hooks: bool,
    ) -> None:
        self._graphs = {function.qualified_name: function.graph for function in functions}
        self._stored = stored
        self._has_hooks = has_hooks
        self._uses = _uses(self._graphs)

    def without_proof(self) -> Iterator[tuple[str, str, Enum]]:
        """Yield each op and its function where an argument may not be a member of its enum."""
        for function, graph in self._graphs.items():
            for scope, node in _nodes(function, graph):
                for value, enum in _enum_values(node):
                    if not self._is_member(_Place(scope, value), enum):
                        yield node.kind(), function, enum

    def _is_member(self, place: _Place, enum: Enum) -> bool:
        """Return whether a value is None or a member of an enum, wherever it comes from."""
        todo = [place]
        seen = set[tuple[str, str]]()
        while todo:
            function, value = todo.pop()
            key = (function, value.debugName())
            if key in seen:
                continue
            seen.add(key)
            origins = self._origins(function, value, enum)
            if origins is None:
                return False
            todo += origins
        return True

    def _origins(self, function: str, value: Any, enum: Enum) -> list[_Place] | None:
        """Return the values that this one may be: none if it is a member, None if unknown."""
        node = value.node()
        kind = node.kind()
        if kind == "prim::Constant":
            return [] if enum.has(value.toIValue()) else None
        if _gives(node, enum):
            return []
        if kind == "prim::GetAttr":
            return self._attribute_origins(node.s("name"), enum)
        if kind in _CALLS:
            return self._result_origins(node)
        if kind == "prim::Param" and node.owningBlock().owningNode() is None:
            return self._argument_origins(function, value.offset())
        inside = _origins_inside(value)
        if inside is None:
            return None
        return [_Place(function, origin) for origin in inside]

    def _attribute_origins(self, name: str, enum: Enum) -> list[_Place] | None:
        """Return what is assigned to attributes of a name, if what is stored are members."""
        if not all(map(enum.has, self._stored.get(name, ()))):
            return None
        return self._uses.assigned.get(name, [])

    def _argument_origins(self, function: str, number: int) -> list[_Place] | None:
        """Return what the callers of a function give it, None if PyTorch may call it, too."""
        if function not in self._graphs:
            return None
        method = function.rpartition(".")[2]
        callers = [*self._uses.calls.get(function, ()), *self._uses.calls.get(f".{method}", ())]
        is_called_by_pytorch = self._has_hooks or method == _LOADING or not callers
        if is_called_by_pytorch and _is_method(self._graphs[function]):
            return None
        return [_Place(call.function, _argument(call.node, number)) for call in callers]

    def _result_origins(self, node: Any) -> list[_Place] | None:
        """Return what the called functions return."""
        name = _called(node)
        names = [name]
        if name.startswith("."):
            names = [other for other in self._graphs if other.endswith(name)]
        if not names or not self._graphs.keys() >= set(names):
            return None
        return [_Place(name, next(self._graphs[name].outputs())) for name in names]


def _uses(graphs: Mapping[str, Any]) -> _Uses:
    uses = _Uses()
    for function, graph in graphs.items():
        for scope, node in _nodes(function, graph):
            if node.kind() in _CALLS:
                uses.calls[_called(node)].append(_Call(scope, node))
            elif node.kind() == "prim::SetAttr":
                place = _Place(scope, _inputs(node)[1])
                uses.assigned[node.s("name")].append(place)
    return uses


def _nodes(function: str, graph: Any) -> Iterator[tuple[str, Any]]:
    """Yield the nodes of a function, inner ones included, with the scope that names are of.

    A graph inside of a node, such as that of a fork, is a scope of its own.
    """
    todo = [(function, graph)]
    scopes = 1
    while todo:
        scope, block = todo.pop()
        for node in block.nodes():
            yield scope, node
            todo += ((scope, inner) for inner in node.blocks())
            for name in node.attributeNames():
                if node.kindOf(name) == "g":
                    todo.append((f"{function}#{scopes}", node.g(name)))
                    scopes += 1


def _enum_values(node: Any) -> Iterator[tuple[Any, Enum]]:
    """Yield the values that an op takes for members of an enum."""
    if not has_enums(node.kind()):
        return
    inputs = _inputs(node)
    schema = node.schema()
    may_copy = f".{READS_NO_DTYPE}(" in schema and inputs[-1].toIValue() is not False
    for number, enum in enum_arguments(schema):
        yield inputs[number], replace(enum, is_optional=enum.is_optional and not may_copy)


def _gives(node: Any, enum: Enum) -> bool:
    """Return whether an op returns a member of an enum."""
    kind = node.kind()
    if kind in _SOURCES:
        return _SOURCES[kind] == enum.name
    result = enum_of_result(node.schema()) if has_enums(kind) else None
    return result is not None and result.name == enum.name


def _origins_inside(value: Any) -> list[Any] | None:
    """Return the values of the same function that a value may be, None if it is computed."""
    node, place = value.node(), value.offset()
    match node.kind():
        case kind if kind in _UNCHANGED:
            return _inputs(node)[:1]
        case "prim::If":
            return [_outputs(block)[place] for block in node.blocks()]
        case "prim::Loop":
            return _carried(node, place)
        case "prim::Param":
            outer = node.owningBlock().owningNode()
            if outer.kind() == "prim::Loop" and place > 0:
                return _carried(outer, place - 1)
        case "prim::TupleUnpack":
            made = _inputs(node)[0].node()
            if made.kind() == "prim::TupleConstruct":
                return [_inputs(made)[place]]
    return None


def _carried(loop: Any, number: int) -> list[Any]:
    """Return what a variable of a loop is before it, and after each round."""
    (body,) = loop.blocks()
    return [_inputs(loop)[number + 2], _outputs(body)[number + 1]]


def _is_method(graph: Any) -> bool:
    """Return whether the first argument of a function is an object."""
    first = next(graph.inputs(), None)
    return first is not None and first.type().kind() == "ClassType"


def _called(node: Any) -> str:
    """Return the qualified name of the function that a node calls, or `.method`."""
    kind = next(node.inputs()).type()
    if node.kind() == "prim::CallFunction":
        return str(kind)
    if kind.kind() == "ClassType":
        return f"{kind.qualified_name()}.{node.s('name')}"
    return f".{node.s('name')}"


def _argument(node: Any, number: int) -> Any:
    """Return an argument of a call by its number; a method's object is its argument 0."""
    if node.kind() == "prim::CallFunction":
        # The function itself is the first input.
        number += 1
    return _inputs(node)[number]


def _inputs(node: Any) -> list[Any]:
    return [*node.inputs()]


def _outputs(block: Any) -> list[Any]:
    return [*block.outputs()]
