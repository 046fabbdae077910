"""What a model takes and returns: tensors inside whatever tuples, lists and dicts it uses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import assert_never


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: its dtype as torch prints it without `torch.`, and its sizes.

    Integer values are made in [0, `below`). `sample` is the number of a tensor that the worker was given by
    a sample file, used as it is where the sizes agree.
    """

    dtype: str
    sizes: tuple[int, ...]
    below: int = 2
    sample: int | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def may_hold_ids(self) -> bool:
        """Whether it is of a dtype in which rows of an embedding are named."""
        return self.dtype in ("int64", "int32")

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.sizes))}]"


@dataclass(frozen=True, slots=True)
class Literal:
    """A value that is no tensor: a number, a text, a flag, nothing."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that no port can carry, by the name of its type."""

    type_name: str


@dataclass(frozen=True, slots=True)
class TreeSequence:
    """A tuple or a list; `names` for a named tuple."""

    kind: str
    items: tuple[Tree, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeMapping:
    """A dict, or an object of a library that acts as one."""

    entries: tuple[tuple[str, Tree], ...]
    kind: str = "dict"


Tree = TensorSpec | Literal | Opaque | TreeSequence | TreeMapping


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call: by position, or by name."""

    value: Tree
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    arguments: tuple[Argument, ...]

    @property
    def elements(self) -> int:
        """Of all its tensors together."""
        return sum(spec.elements for _, spec in call_leaves(self))

    def __str__(self) -> str:
        return ", ".join(str(spec) for _, spec in call_leaves(self))


KeyPath = tuple[int | str, ...]
Axis = tuple[KeyPath, int]


def leaves(tree: Tree, path: KeyPath = ()) -> Iterator[tuple[KeyPath, TensorSpec]]:
    """Each tensor with the way to it, in order."""
    match tree:
        case TensorSpec():
            yield path, tree
        case TreeSequence(_, items):
            for number, item in enumerate(items):
                yield from leaves(item, (*path, number))
        case TreeMapping(entries):
            for key, item in entries:
                yield from leaves(item, (*path, key))
        case Literal() | Opaque():
            return
        case _:
            assert_never(tree)


def call_leaves(call: Call) -> Iterator[tuple[KeyPath, TensorSpec]]:
    """Each tensor of a call; its path starts with the number of the argument."""
    for number, argument in enumerate(call.arguments):
        yield from leaves(argument.value, (number,))


def replace_leaf(tree: Tree, path: KeyPath, spec: TensorSpec) -> Tree:
    """The same tree with the tensor at `path` replaced."""
    if not path:
        return spec
    head, rest = path[0], path[1:]
    match tree:
        case TreeSequence(_, items):
            changed = (
                replace_leaf(item, rest, spec) if number == head else item
                for number, item in enumerate(items)
            )
            return replace(tree, items=tuple(changed))
        case TreeMapping(entries):
            return replace(
                tree,
                entries=tuple(
                    (key, replace_leaf(item, rest, spec) if key == head else item)
                    for key, item in entries
                ),
            )
        case TensorSpec() | Literal() | Opaque():
            raise KeyError(path)
        case _:
            assert_never(tree)


def replace_call_leaf(call: Call, changes: dict[KeyPath, TensorSpec]) -> Call:
    """The same call with the tensors at these paths replaced."""
    arguments = list(call.arguments)
    for path, spec in changes.items():
        number = path[0]
        if not isinstance(number, int):
            raise KeyError(path)
        old = arguments[number]
        arguments[number] = replace(old, value=replace_leaf(old.value, path[1:], spec))
    return Call(tuple(arguments))


def resized(call: Call, axes: tuple[Axis, ...], size: int) -> Call:
    """The call with this size on each of these axes; values of a sample no longer apply."""
    changes = dict[KeyPath, TensorSpec]()
    specs = dict(call_leaves(call))
    for path, axis in axes:
        spec = changes.get(path, specs[path])
        sizes = (*spec.sizes[:axis], size, *spec.sizes[axis + 1 :])
        changes[path] = replace(spec, sizes=sizes, sample=None)
    return replace_call_leaf(call, changes)


def keystr(path: KeyPath) -> str:
    """`[0]["logits"]`, as it would be written behind a name in Python."""
    return "".join(f"[{step}]" if isinstance(step, int) else f'["{step}"]' for step in path)


def describe_tree(tree: Tree) -> str:
    """What a person calls it."""
    match tree:
        case TensorSpec():
            return "a tensor"
        case TreeSequence(kind, items):
            return f"a {kind} of {len(items)}"
        case TreeMapping(entries, kind):
            return f"a {kind} with {', '.join(key for key, _ in entries) or 'nothing'}"
        case Literal(None):
            return "nothing"
        case Literal(value):
            return f"the {type(value).__name__} {value}"
        case Opaque(type_name):
            return f"an object of type {type_name}"
        case _:
            assert_never(tree)


def get_path(tree: Tree, path: KeyPath) -> Tree:
    """The part of `tree` at `path`; KeyError where there is none."""
    for step in path:
        match tree:
            case TreeSequence(_, items) if isinstance(step, int) and 0 <= step < len(items):
                tree = items[step]
            case TreeMapping(entries) if any(key == step for key, _ in entries):
                tree = next(value for key, value in entries if key == step)
            case _:
                raise KeyError(keystr(path))
    return tree


def select(tree: Tree, port: str) -> KeyPath:
    """The path that `port` names; KeyError where the result has no such port."""
    path = find_path(tree, port)
    if path is None:
        raise KeyError(port)
    return path


def find_path(tree: Tree, port: str) -> KeyPath | None:
    """The path that `port` names: `logits`, `[0]`, `out["logits"]`, `0`, or the name of a named tuple's field."""
    wanted = port.removeprefix("out")
    for path in _paths(tree, ()):
        plain = ".".join(map(str, path))
        if (
            path and wanted in (keystr(path), keystr(path).replace('"', "'"), plain)
        ) or port == plain:
            return path
    if isinstance(tree, TreeSequence) and port in tree.names:
        return (tree.names.index(port),)
    return None


def _paths(tree: Tree, path: KeyPath) -> list[KeyPath]:
    found = [path]
    if isinstance(tree, TreeSequence):
        for number, item in enumerate(tree.items):
            found += _paths(item, (*path, number))
    if isinstance(tree, TreeMapping):
        for key, item in tree.entries:
            found += _paths(item, (*path, key))
    return found
