"""What a pickle says, without unpickling: its opcodes are followed and nothing is imported or called.

The result is a tree of plain nodes. Source of the format: `pickletools` in the standard library.
"""

from __future__ import annotations

import pickletools
import warnings
from dataclasses import dataclass, field
from typing import Any

MOST_OPCODES = 5_000_000


class NotAPickle(Exception):
    """The bytes are no pickle that runs to its end."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that unpickling would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Constructed:
    """An object that unpickling would make with `maker`: by calling it, or (`new`) by its `__new__` alone.

    `state` is what it would be given after.
    """

    maker: object
    arguments: object
    new: bool = False
    state: object = None
    items: list[tuple[object, object]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Persistent:
    """A reference to something outside the pickle: in a checkpoint, to a tensor's storage."""

    key: object


@dataclass(eq=False, slots=True)
class PickleDict:
    """A dict; keys may be anything."""

    items: list[tuple[object, object]] = field(default_factory=list)

    def get(self, key: str) -> object:
        return next((value for name, value in reversed(self.items) if name == key), None)


@dataclass(frozen=True, slots=True)
class ParsedPickle:
    """What the pickle holds, and every name that it would import, object that it would make and outside reference."""

    value: object
    imports: tuple[Global, ...]
    made: tuple[Constructed, ...] = ()
    persistent: tuple[Persistent, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One opcode by its name, with its argument, and the byte that it starts at."""

    name: str
    argument: Any
    place: int


def operations(data: bytes) -> tuple[Operation, ...]:
    """The opcodes of one pickle.

    Raises:
        NotAPickle: it breaks off, or something comes behind its end.
    """
    found = list[Operation]()
    try:
        # pickletools warns of an invalid escape, which would be printed in the middle of a report.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            for opcode, argument, place in pickletools.genops(data):
                found.append(Operation(opcode.name, argument, place or 0))
                if len(found) > MOST_OPCODES:
                    raise NotAPickle("more opcodes than any model has")
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise NotAPickle(f"{type(error).__name__}: {error}") from None
    if found[-1].name != "STOP" or found[-1].place + 1 != len(data):
        raise NotAPickle("something behind its end")
    return tuple(found)


def parse(data: bytes) -> ParsedPickle:
    """Follow the opcodes of one pickle.

    Raises:
        NotAPickle: it breaks off, holds an opcode that PyTorch never writes, or does not hold together.
    """
    return interpret(operations(data))


def interpret(found: tuple[Operation, ...]) -> ParsedPickle:
    """Follow the opcodes of one pickle, all but the last, its end.

    Raises:
        NotAPickle: one is an opcode that PyTorch never writes, or they do not hold together.
    """
    machine = _Machine()
    try:
        for operation in found[:-1]:
            machine.step(operation.name, operation.argument)
        return machine.walked()
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        UnicodeDecodeError,
        OverflowError,
    ) as error:
        raise NotAPickle(f"{type(error).__name__}: {error}") from None


_MARK = object()
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    [
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
        "UNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "FLOAT",
        "BINFLOAT",
    ]
)
_NOTHING = frozenset(("PROTO", "FRAME"))


class _Machine:
    """The stack and memo of the pickle machine, holding nodes instead of objects."""

    def __init__(self) -> None:
        self.stack = list[Any]()
        self.memo = dict[int, object]()
        self.imports = list[Global]()
        self.made = list[Constructed]()
        self.persistent = list[Persistent]()

    def walked(self) -> ParsedPickle:
        value = self.pop()
        if self.stack:
            raise NotAPickle("more than one value")
        return ParsedPickle(
            value, tuple(dict.fromkeys(self.imports)), tuple(self.made), tuple(self.persistent)
        )

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise NotAPickle("an opcode takes what is not there")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise NotAPickle("no mark")

    def step(self, name: str, argument: Any) -> None:
        if name in _NOTHING:
            return
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name])
        elif name == "MARK":
            self.stack.append(_MARK)
        else:
            method = getattr(self, f"op_{name.lower()}", None)
            if method is None:
                raise NotAPickle(f"opcode {name}")
            method(argument)

    def op_pop(self, _: object) -> None:
        self.stack.pop()

    def op_dup(self, _: object) -> None:
        self.stack.append(self.stack[-1])

    def op_put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    op_binget = op_long_binget = op_get

    def op_global(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self._import(module, name)

    def op_stack_global(self, _: object) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise NotAPickle("an import without a name")
        self._import(module, name)

    def _import(self, module: str, name: str) -> None:
        found = Global(module, name)
        self.imports.append(found)
        self.stack.append(found)

    def op_tuple(self, _: object) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def _tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def op_tuple1(self, _: object) -> None:
        self._tuple_of(1)

    def op_tuple2(self, _: object) -> None:
        self._tuple_of(2)

    def op_tuple3(self, _: object) -> None:
        self._tuple_of(3)

    def op_empty_list(self, _: object) -> None:
        self.stack.append([])

    op_empty_set = op_empty_list

    def op_list(self, _: object) -> None:
        self.stack.append(self.pop_to_mark())

    def op_append(self, _: object) -> None:
        item = self.pop()
        self.stack[-1].append(item)

    def op_appends(self, _: object) -> None:
        items = self.pop_to_mark()
        target = self.stack[-1]
        target.extend(items) if isinstance(target, list) else target.items.extend(
            (None, item) for item in items
        )

    op_additems = op_appends

    def op_empty_dict(self, _: object) -> None:
        self.stack.append(PickleDict())

    def op_dict(self, _: object) -> None:
        self.stack.append(PickleDict(_pairs(self.pop_to_mark())))

    def op_setitem(self, _: object) -> None:
        value, key = self.pop(), self.pop()
        self.stack[-1].items.append((key, value))

    def op_setitems(self, _: object) -> None:
        pairs = _pairs(self.pop_to_mark())
        self.stack[-1].items.extend(pairs)

    def op_reduce(self, _: object) -> None:
        arguments, maker = self.pop(), self.pop()
        self._make(Constructed(maker, arguments))

    def op_newobj(self, _: object) -> None:
        arguments, maker = self.pop(), self.pop()
        self._make(Constructed(maker, arguments, new=True))

    def op_newobj_ex(self, _: object) -> None:
        keywords, arguments, maker = self.pop(), self.pop(), self.pop()
        self._make(Constructed(maker, (arguments, keywords), new=True))

    def _make(self, made: Constructed) -> None:
        self.made.append(made)
        self.stack.append(made)

    def op_build(self, _: object) -> None:
        state = self.pop()
        target = self.stack[-1]
        if not isinstance(target, Constructed):
            raise NotAPickle("a state for what is no object")
        if target.state is not None:
            raise NotAPickle("an object that is given its state twice")
        target.state = state

    def op_binpersid(self, _: object) -> None:
        self._refer(Persistent(self.pop()))

    def op_persid(self, key: str) -> None:
        self._refer(Persistent(key))

    def _refer(self, persistent: Persistent) -> None:
        self.persistent.append(persistent)
        self.stack.append(persistent)


def _pairs(items: list[Any]) -> list[tuple[object, object]]:
    if len(items) % 2:
        raise NotAPickle("a key without a value")
    return list(zip(items[::2], items[1::2], strict=True))
