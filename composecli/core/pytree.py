"""Trees: the arguments and results of a model, which are tensors inside tuples, lists and dicts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

from composecli.core.limits import shorten


class Fill(StrEnum):
    """The values of a tensor that is generated: those of ids are 0, random, or the largest."""

    RANDOM = "random"
    ZEROS = "zeros"
    POSITIVE = "positive"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor without its values: its dtype as torch prints it without `torch.`, and its sizes.

    Integer values are drawn from [0, `below`). `sample` is the number of a tensor from a sample
    file, which the worker uses instead if the sizes agree.
    """

    dtype: str
    sizes: tuple[int, ...]
    below: int = 2
    sample: int | None = None
    fill: Fill = Fill.RANDOM

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.sizes)

    @property
    def may_hold_ids(self) -> bool:
        """Whether an embedding accepts this dtype as indices."""
        return self.dtype in ("int64", "int32")

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.sizes))
        return f"{self.dtype}[{sizes}]"


@dataclass(frozen=True, slots=True)
class Literal:
    """A plain value: a number, a string, a flag or None."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Opaque:
    """An object that no port can carry, by the name of its type."""

    type_name: str


@dataclass(frozen=True, slots=True)
class TreeSequence:
    """A tuple or a list; `names` are the fields of a named tuple."""

    kind: str
    items: tuple[Tree, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeMapping:
    """A dict, or an object of a library that behaves like one."""

    entries: tuple[tuple[str, Tree], ...]
    kind: str = "dict"


# A key that needs no quotes in the name of a port.
_WORD = re.compile(r"[A-Za-z_][\w-]*")
# One step of the name of a port: `[0]`, `["a key"]`, or a word, with a dot unless it is the first.
_STEP = re.compile(r'\[(\d{1,6})\]|\["([^"]*)"\]|\.?([A-Za-z_][\w-]*)')

Tree = TensorSpec | Literal | Opaque | TreeSequence | TreeMapping
# Indices and keys that lead from the root of a tree to a part of it, as in JAX and torch.export.
KeyPath = tuple[int | str, ...]
Axis = tuple[KeyPath, int]
Leaf = tuple[KeyPath, TensorSpec]


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call, positional unless it has a name."""

    value: Tree
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one forward."""

    arguments: tuple[Argument, ...]

    @property
    def elements(self) -> int:
        """The number of elements of all tensors together."""
        return sum(spec.elements for _, spec in call_leaves(self))

    def __str__(self) -> str:
        texts = [str(spec) for _, spec in call_leaves(self)]
        return ", ".join(texts)


def leaves(tree: Tree, path: KeyPath = ()) -> Iterator[Leaf]:
    """Yield each tensor with its path, in order."""
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


def call_leaves(call: Call) -> Iterator[Leaf]:
    """Yield each tensor of a call; its path starts with the number of the argument."""
    for number, argument in enumerate(call.arguments):
        yield from leaves(argument.value, (number,))


def replace_leaf(tree: Tree, path: KeyPath, spec: TensorSpec) -> Tree:
    """Return the same tree with another tensor at `path`.

    Raises:
        KeyError: if the path leads below a leaf.
    """
    if not path:
        return spec
    head, rest = path[0], path[1:]
    match tree:
        case TreeSequence(_, items):
            changed_items = list[Tree]()
            for number, item in enumerate(items):
                if number == head:
                    item = replace_leaf(item, rest, spec)  # noqa: PLW2901
                changed_items.append(item)
            return replace(tree, items=tuple(changed_items))
        case TreeMapping(entries):
            changed_entries = list[tuple[str, Tree]]()
            for key, item in entries:
                if key == head:
                    item = replace_leaf(item, rest, spec)  # noqa: PLW2901
                changed_entries.append((key, item))
            return replace(tree, entries=tuple(changed_entries))
        case TensorSpec() | Literal() | Opaque():
            raise KeyError(path)
        case _:
            assert_never(tree)


def replace_call_leaf(call: Call, changes: dict[KeyPath, TensorSpec]) -> Call:
    """Return the same call with other tensors at these paths.

    Raises:
        KeyError: if a path does not start with the number of an argument.
    """
    arguments = list(call.arguments)
    for path, spec in changes.items():
        number = path[0]
        if not isinstance(number, int):
            raise KeyError(path)
        old = arguments[number]
        value = replace_leaf(old.value, path[1:], spec)
        arguments[number] = replace(old, value=value)
    return Call(tuple(arguments))


def filled(call: Call, fill: Fill) -> Call:
    """Return the same call with other values in every tensor, also in place of samples."""
    changes = dict[KeyPath, TensorSpec]()
    for path, spec in call_leaves(call):
        changes[path] = replace(spec, fill=fill, sample=None)
    return replace_call_leaf(call, changes)


def size_of(call: Call, axis: Axis) -> int:
    """Return the size of one axis of a tensor in a call."""
    path, number = axis
    return dict(call_leaves(call))[path].sizes[number]


def resized(call: Call, axes: tuple[Axis, ...], size: int) -> Call:
    """Return the same call with this size on each of these axes, without values of a sample."""
    changes = dict[KeyPath, TensorSpec]()
    specs = dict(call_leaves(call))
    for path, axis in axes:
        spec = changes.get(path, specs[path])
        before, after = spec.sizes[:axis], spec.sizes[axis + 1 :]
        changes[path] = replace(spec, sizes=(*before, size, *after), sample=None)
    return replace_call_leaf(call, changes)


def keystr(path: KeyPath) -> str:
    """Return the path as Python subscripts: `[0]["logits"]`."""
    texts = list[str]()
    for step in path:
        if isinstance(step, int):
            texts.append(f"[{step}]")
        else:
            texts.append(f'["{step}"]')
    return "".join(texts)


def port_name(path: KeyPath, tree: Tree | None = None) -> str:
    """Return the name of the port at a path, as users see and write it.

    It is `logits`, `[0]`, `hidden[0]` or `out.mean`; a key that is no word is quoted, `["a b"]`.
    The items of a named tuple have the names of its fields if the tree is given.
    """
    texts = list[str]()
    for step in path:
        field = step
        if isinstance(tree, TreeSequence) and tree.names and isinstance(step, int):
            field = tree.names[step]
        texts.append(_step_name(field, is_first=not texts))
        if tree is not None:
            tree = get_path(tree, (step,))
    return "".join(texts)


def parse_port_name(name: str) -> KeyPath:
    """Return the path of a name as `port_name` writes it without a tree; empty for no name.

    Raises:
        ValueError: if it is not such a name; the message is written for users.
    """
    path = list[int | str]()
    position = 0
    while position < len(name):
        step = _STEP.match(name, position)
        if step is None or (not path and name.startswith(".")):
            example = 'logits, [0], out.mean, ["a key"]'
            raise ValueError(f"not the name of a port: {shorten(name)} (as in {example})")
        number, key, word = step.groups()
        if number is not None:
            path.append(int(number))
        else:
            path.append(key if word is None else word)
        position = step.end()
    return tuple(path)


def port_names(tree: Tree) -> dict[KeyPath, str]:
    """Return the names of all parts of a tree by their paths, each as `port_name` returns it."""
    names = dict[KeyPath, str]()
    _add_names(names, tree, (), "")
    return names


def _add_names(names: dict[KeyPath, str], tree: Tree, path: KeyPath, name: str) -> None:
    """Add the names of a part and of those in it."""
    names[path] = name
    if isinstance(tree, TreeSequence):
        for number, item in enumerate(tree.items):
            field: int | str = number
            if tree.names:
                field = tree.names[number]
            inner = name + _step_name(field, is_first=not path)
            _add_names(names, item, (*path, number), inner)
    if isinstance(tree, TreeMapping):
        for key, item in tree.entries:
            inner = name + _step_name(key, is_first=not path)
            _add_names(names, item, (*path, key), inner)


def _step_name(step: int | str, *, is_first: bool) -> str:
    """Return one step of a port's name."""
    if isinstance(step, int):
        return f"[{step}]"
    if not _WORD.fullmatch(step):
        return f'["{step}"]'
    if is_first:
        return step
    return f".{step}"


def describe_tree(tree: Tree) -> str:
    """Return a description for users: `a tensor`, `a tuple of 2`, `a dict with logits, loss`."""
    match tree:
        case TensorSpec():
            return "a tensor"
        case TreeSequence(kind, items):
            return f"a {kind} of {len(items)}"
        case TreeMapping(entries, kind):
            keys = ", ".join(key for key, _ in entries)
            return f"a {kind} with {keys or 'nothing'}"
        case Literal(None):
            return "nothing"
        case Literal(value):
            return f"the {type(value).__name__} {value}"
        case Opaque(type_name):
            return f"an object of type {type_name}"
        case _:
            assert_never(tree)


def get_path(tree: Tree, path: KeyPath) -> Tree:
    """Return the part of `tree` at `path`.

    Raises:
        KeyError: if there is no such part.
    """
    for step in path:
        match tree:
            case TreeSequence(_, items) if isinstance(step, int) and 0 <= step < len(items):
                tree = items[step]
            case TreeMapping(entries) if isinstance(step, str) and step in dict(entries):
                tree = dict(entries)[step]
            case _:
                raise KeyError(keystr(path))
    return tree


def select(tree: Tree, port: str) -> KeyPath:
    """Return the path that `port` names.

    Raises:
        KeyError: if the tree has no such port.
    """
    path = find_path(tree, port)
    if path is None:
        raise KeyError(port)
    return path


def find_path(tree: Tree, port: str) -> KeyPath | None:
    """Return the path that `port` names; None if the tree has no such port.

    The name is that of `port_name`, or any other way to write it in Python: `["logits"]`,
    `out["logits"]`, `hidden.0`.
    """
    named = port_names(tree)
    candidates = [path for path in named if path]
    for path in candidates:
        if port == named[path]:
            return path
    for path in candidates:
        if port in (keystr(path), _dotted(path)):
            return path
    plain = _plain(port)
    for path in candidates:
        if plain in (_plain(named[path]), _plain(keystr(path))):
            return path
    return None


def _dotted(path: KeyPath) -> str:
    """Return the path with dots between its steps: `hidden.0`."""
    return ".".join(map(str, path))


def _plain(port: str) -> str:
    """Return the one form of a name that has several: `hidden.0` for `hidden[0]`."""
    text = port
    if re.match(r"out[.\[]", text):
        text = text[len("out") :]
    return re.sub(r"""[\[.]["']?""", ".", re.sub(r"""["']?\]""", "", text)).removeprefix(".")


def paths(tree: Tree, path: KeyPath = ()) -> list[KeyPath]:
    """Return the paths of all parts, the tree itself first."""
    found = [path]
    if isinstance(tree, TreeSequence):
        for number, item in enumerate(tree.items):
            found += paths(item, (*path, number))
    if isinstance(tree, TreeMapping):
        for key, item in tree.entries:
            found += paths(item, (*path, key))
    return found
