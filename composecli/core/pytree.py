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
class Other:
    """Something that no port can carry, by the name of its type."""

    type_name: str


@dataclass(frozen=True, slots=True)
class Items:
    """A tuple or a list; `names` for a named tuple."""

    kind: str
    items: tuple[Tree, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entries:
    """A dict, or an object of a library that acts as one."""

    entries: tuple[tuple[str, Tree], ...]
    kind: str = "dict"


Tree = TensorSpec | Literal | Other | Items | Entries


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


Path = tuple[int | str, ...]
Axis = tuple[Path, int]


def leaves(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, TensorSpec]]:
    """Each tensor with the way to it, in order."""
    match tree:
        case TensorSpec():
            yield path, tree
        case Items(_, items):
            for number, item in enumerate(items):
                yield from leaves(item, (*path, number))
        case Entries(entries):
            for key, item in entries:
                yield from leaves(item, (*path, key))
        case Literal() | Other():
            return
        case _:
            assert_never(tree)


def call_leaves(call: Call) -> Iterator[tuple[Path, TensorSpec]]:
    """Each tensor of a call; its path starts with the number of the argument."""
    for number, argument in enumerate(call.arguments):
        yield from leaves(argument.value, (number,))


def with_leaf(tree: Tree, path: Path, spec: TensorSpec) -> Tree:
    """The same tree with the tensor at `path` replaced."""
    if not path:
        return spec
    head, rest = path[0], path[1:]
    match tree:
        case Items(_, items):
            changed = (with_leaf(item, rest, spec) if number == head else item for number, item in enumerate(items))
            return replace(tree, items=tuple(changed))
        case Entries(entries):
            return replace(
                tree,
                entries=tuple((key, with_leaf(item, rest, spec) if key == head else item) for key, item in entries),
            )
        case TensorSpec() | Literal() | Other():
            raise KeyError(path)
        case _:
            assert_never(tree)


def call_with(call: Call, changes: dict[Path, TensorSpec]) -> Call:
    """The same call with the tensors at these paths replaced."""
    arguments = list(call.arguments)
    for path, spec in changes.items():
        number = path[0]
        if not isinstance(number, int):
            raise KeyError(path)
        old = arguments[number]
        arguments[number] = replace(old, value=with_leaf(old.value, path[1:], spec))
    return Call(tuple(arguments))


def resized(call: Call, axes: tuple[Axis, ...], size: int) -> Call:
    """The call with this size on each of these axes; values of a sample no longer apply."""
    changes = dict[Path, TensorSpec]()
    specs = dict(call_leaves(call))
    for path, axis in axes:
        spec = changes.get(path, specs[path])
        sizes = (*spec.sizes[:axis], size, *spec.sizes[axis + 1 :])
        changes[path] = replace(spec, sizes=sizes, sample=None)
    return call_with(call, changes)


def path_text(path: Path) -> str:
    """`[0]["logits"]`, as it would be written behind a name in Python."""
    return "".join(f"[{step}]" if isinstance(step, int) else f'["{step}"]' for step in path)


def kind_of(tree: Tree) -> str:
    """What a person calls it."""
    match tree:
        case TensorSpec():
            return "a tensor"
        case Items(kind, items):
            return f"a {kind} of {len(items)}"
        case Entries(entries, kind):
            return f"a {kind} with {', '.join(key for key, _ in entries) or 'nothing'}"
        case Literal(None):
            return "nothing"
        case Literal(value):
            return f"the {type(value).__name__} {value}"
        case Other(type_name):
            return f"an object of type {type_name}"
        case _:
            assert_never(tree)


def at(tree: Tree, path: Path) -> Tree:
    """The part of `tree` at `path`; KeyError where there is none."""
    for step in path:
        match tree:
            case Items(_, items) if isinstance(step, int) and 0 <= step < len(items):
                tree = items[step]
            case Entries(entries) if any(key == step for key, _ in entries):
                tree = next(value for key, value in entries if key == step)
            case _:
                raise KeyError(path_text(path))
    return tree


def select(tree: Tree, port: str) -> Path:
    """The path that `port` names; KeyError where the result has no such port."""
    path = find(tree, port)
    if path is None:
        raise KeyError(port)
    return path


def find(tree: Tree, port: str) -> Path | None:
    """The path that `port` names: `logits`, `[0]`, `out["logits"]`, `0`, or the name of a named tuple's field."""
    wanted = port.removeprefix("out")
    for path in _paths(tree, ()):
        plain = ".".join(map(str, path))
        if (path and wanted in (path_text(path), path_text(path).replace('"', "'"), plain)) or port == plain:
            return path
    if isinstance(tree, Items) and port in tree.names:
        return (tree.names.index(port),)
    return None


def _paths(tree: Tree, path: Path) -> list[Path]:
    found = [path]
    if isinstance(tree, Items):
        for number, item in enumerate(tree.items):
            found += _paths(item, (*path, number))
    if isinstance(tree, Entries):
        for key, item in tree.entries:
            found += _paths(item, (*path, key))
    return found
