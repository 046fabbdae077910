"""Casts in TorchScript graphs: whether the code that surrounds one proves the type.

PyTorch's compiler writes `unchecked_cast` where a condition has narrowed a type, and the
interpreter believes it. It reads the slots of an object, and the items of a tuple, by the numbers
of the type that they were cast to. So a cast to a type with classes or tuples needs a proof:

    if isinstance(x, Encoder):
        y = unchecked_cast(Encoder, x)

Values of plain types, such as tensors and lists of integers, are checked wherever they are used. So
is None, and a cast of an `Optional` to what is in it needs no proof.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_CAST = "prim::unchecked_cast"
_UNPACK = "prim::TupleUnpack"

_PLAIN_KINDS = frozenset(
    (
        "TensorType", "IntType", "FloatType", "BoolType", "StringType", "ComplexType", "NoneType",
        "NumberType", "DeviceObjType", "AnyType",
    )
)  # fmt: skip
_CONTAINERS = frozenset(("ListType", "DictType", "OptionalType", "UnionType"))
_ALTERNATIVES = frozenset(("OptionalType", "UnionType"))
# Conditions are followed through this many `and` and `not`.
_MAX_STEPS = 50
# That a value is, or is not, of one of these types.
_Fact = tuple[list[Any], bool]


def is_trusted_blindly(node: Any) -> bool:
    """Return whether PyTorch would believe a node about a type that nothing proves.

    PyTorch computes casts of constants while it compiles: only the unpacking of them remains.
    """
    if node.kind() == _UNPACK:
        kinds = next(node.inputs()).type().containedTypes()
        return len(kinds) != len([*node.outputs()])
    return node.kind() == _CAST and not is_proved(node)


def is_proved(cast: Any) -> bool:
    """Return whether the value of a cast is certain to have the type, as far as that matters."""
    (value,) = cast.inputs()
    target = cast.output().type()
    if _is_plain(target):
        return True
    facts = [*_facts_at(cast, value)]
    if any(holds and _all_fit(types, target) for types, holds in facts):
        return True
    excluded = [kind for types, holds in facts if not holds for kind in types]
    return all(
        kind.isSubtypeOf(target) or _is_checked(kind) or _fits_one(kind, excluded)
        for kind in _alternatives(value.type())
    )


def _is_plain(kind: Any) -> bool:
    """Return whether every use of a value of a type checks the type of the value."""
    if kind.kind() in _CONTAINERS:
        return all(map(_is_plain, kind.containedTypes()))
    return kind.kind() in _PLAIN_KINDS


def _is_checked(kind: Any) -> bool:
    """Return whether a value of a type is refused where an object or a tuple is meant."""
    return kind.kind() in _PLAIN_KINDS and kind.kind() != "AnyType"


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types of which a value of a type has one."""
    if kind.kind() not in _ALTERNATIVES:
        yield kind
        return
    for inner in kind.containedTypes():
        yield from _alternatives(inner)


def _all_fit(kinds: list[Any], target: Any) -> bool:
    return all(kind.isSubtypeOf(target) for kind in kinds)


def _fits_one(kind: Any, targets: list[Any]) -> bool:
    return any(kind.isSubtypeOf(target) for target in targets)


def _facts_at(node: Any, value: Any) -> Iterator[_Fact]:
    """Yield the facts about a value that follow from the conditions around a node."""
    block = node.owningBlock()
    outer = block.owningNode()
    while outer is not None:
        if outer.kind() == "prim::If":
            (condition,) = outer.inputs()
            is_true = block == _blocks(outer)[0]
            yield from _facts(condition, value, _MAX_STEPS, is_true=is_true)
        block = outer.owningBlock()
        outer = block.owningNode()


def _facts(condition: Any, value: Any, steps: int, *, is_true: bool) -> Iterator[_Fact]:
    """Yield the facts about a value that follow if a condition is true, or if it is false."""
    node = condition.node()
    if steps == 0:
        return
    if node.kind() == "prim::isinstance" and next(node.inputs()) == value:
        yield node.tys("types"), is_true
    elif node.kind() == "aten::__not__":
        yield from _facts(next(node.inputs()), value, steps - 1, is_true=not is_true)
    elif node.kind() == "prim::If":
        yield from _facts_of_branch(condition, value, steps - 1, is_true=is_true)


def _facts_of_branch(condition: Any, value: Any, steps: int, *, is_true: bool) -> Iterator[_Fact]:
    """Yield the facts that follow if only one branch of an `if` gives a condition its value.

    `a and b` is compiled to an `if`, which also chooses between the narrowed value and the old one.
    """
    node = condition.node()
    blocks = _blocks(node)
    returned = [_returned(block, condition.offset()) for block in blocks]
    impossible = not is_true
    possible = [place for place in (0, 1) if returned[place].toIValue() is not impossible]
    if len(possible) != 1:
        return
    place = possible[0]
    if value.node() == node:
        value = _returned(blocks[place], value.offset())
        yield [value.type()], True
    yield from _facts(returned[place], value, steps, is_true=is_true)
    yield from _facts(next(node.inputs()), value, steps, is_true=place == 0)


def _blocks(node: Any) -> list[Any]:
    """Return the blocks of an `if`: the first runs if its condition is true."""
    return [*node.blocks()]


def _returned(block: Any, place: int) -> Any:
    """Return the value of a block for one output of its node."""
    return [*block.outputs()][place]
