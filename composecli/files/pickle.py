"""The content of a pickle, without unpickling: its opcodes run on plain nodes.

Nothing is imported or called.

Source of the format: `pickletools` in the standard library.
"""

from __future__ import annotations

import pickletools
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

MAX_OPCODES = 5_000_000
# Values in a tuple, counted wherever it holds one again: hashing and printing visit each of them.
MAX_TUPLE_VALUES = 1_000_000
# Those of LONG1, which PyTorch writes. Python prints no integer that is much longer.
MAX_LONG_BYTES = 255

# Errors of the machine for opcodes that do not fit its stack.
_INCONSISTENT = (
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    UnicodeDecodeError,
    OverflowError,
)
_MARK = object()
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
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
_IGNORED = frozenset(("PROTO", "FRAME"))
# A class, behind the source that the old format stores with it.
_MODULE_REFERENCE = "module"


class NotAPickle(Exception):
    """The bytes are not a complete pickle of the kind that PyTorch writes."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that unpickling would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Constructed:
    """An object that unpickling would make by calling `function`.

    If `is_new`, it would call only `function.__new__`. `state` would be passed to the object's
    `__setstate__`, and `items` would be added to it as to a dict or a list.
    """

    function: object
    arguments: object
    is_new: bool = False
    state: object = None
    items: list[tuple[object, object]] = field(default_factory=list)


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """A reference to something outside the pickle: in a checkpoint, to a tensor's storage."""

    key: object


@dataclass(eq=False, repr=False, slots=True)
class PickleDict:
    """A dict; keys may be anything."""

    items: list[tuple[object, object]] = field(default_factory=list)

    def get(self, key: str) -> object:
        """Return the last value with this key, None if there is none."""
        for name, value in reversed(self.items):
            if name == key:
                return value
        return None


def name_of(node: object) -> str:
    """Return a global, a text or a number as text; of anything that holds others, only its kind.

    Python would write out whatever it holds: deeper than its stack, and shared parts again and
    again.
    """
    match node:
        case str() | Global() | int() | float() | None:
            return str(node)
    return f"a {type(node).__name__}"


@dataclass(frozen=True, slots=True)
class ParsedPickle:
    """The value of a pickle, and every import, object and outside reference on the way to it."""

    value: object
    imports: tuple[Global, ...]
    constructed: tuple[Constructed, ...] = ()
    references: tuple[Persistent, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One opcode by its name, with its argument and its offset in the pickle."""

    name: str
    argument: Any
    place: int


def operations(data: bytes) -> tuple[Operation, ...]:
    """Decode the opcodes of one pickle.

    Raises:
        NotAPickle: if it ends early, or something follows its end.
    """
    decoded = read_operations(data)
    if decoded[-1].place + 1 != len(data):
        raise NotAPickle("bytes after its end")
    for operation in decoded:
        if operation.name == "GLOBAL":
            _check_global(data, operation)
    return decoded


def _check_global(data: bytes, operation: Operation) -> None:
    """Check that the name of an import has no escapes and no spaces.

    `pickletools` interprets escapes, and joins the two words of the name with a space. What loads
    the pickle would import another name.

    Raises:
        NotAPickle: if it has.
    """
    words = str(operation.argument).replace(" ", "\n", 1)
    raw = f"c{words}\n".encode("utf-8", "surrogatepass")
    if not data.startswith(raw, operation.place):
        raise NotAPickle("an import whose name is not plain")


def read_operations(source: bytes | IO[bytes]) -> tuple[Operation, ...]:
    """Decode the opcodes of the pickle at the start of these bytes, or at the place of a file.

    Raises:
        NotAPickle: if it ends early.
    """
    decoded = list[Operation]()
    try:
        # pickletools warns of invalid escapes, which would be printed in the middle of a report.
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            for opcode, argument, place in pickletools.genops(source):
                decoded.append(Operation(opcode.name, argument, place or 0))
                if len(decoded) > MAX_OPCODES:
                    raise NotAPickle("more opcodes than any model has")
    except (ValueError, IndexError, UnicodeDecodeError, OverflowError) as error:
        raise NotAPickle(f"{type(error).__name__}: {error}") from None
    return tuple(decoded)


def parse(data: bytes) -> ParsedPickle:
    """Parse one pickle.

    Raises:
        NotAPickle: if it ends early, is inconsistent, or uses an opcode that PyTorch never writes.
    """
    return interpret(operations(data))


def interpret(decoded: tuple[Operation, ...]) -> ParsedPickle:
    """Run the opcodes of one pickle on plain nodes. The last opcode, STOP, needs no step.

    Raises:
        NotAPickle: if they are inconsistent, or one is an opcode that PyTorch never writes.
    """
    machine = _Machine()
    try:
        for operation in decoded[:-1]:
            machine.run(operation.name, operation.argument)
        return machine.result()
    except _INCONSISTENT as error:
        raise NotAPickle(f"{type(error).__name__}: {error}") from None


class _Machine:
    """The stack and memo of the pickle machine, with nodes in place of objects.

    `run` finds the method of an opcode by its name: SETITEMS is `_op_setitems`.
    """

    def __init__(self) -> None:
        self.stack = list[Any]()
        self.memo = dict[int, object]()
        self.imports = list[Global]()
        self.constructed = list[Constructed]()
        self.references = list[Persistent]()
        # The tuples so far by their identity, with the number of values in each.
        self.tuples = dict[int, tuple[object, int]]()

    def result(self) -> ParsedPickle:
        """Return the value that is left, with all that was collected.

        Raises:
            NotAPickle: if several values are left, or none.
        """
        value = self._pop()
        if self.stack:
            raise NotAPickle("more than one value")
        imports = tuple(dict.fromkeys(self.imports))
        constructed, references = tuple(self.constructed), tuple(self.references)
        return ParsedPickle(value, imports, constructed, references)

    def _pop(self) -> Any:
        """Return the top of the stack, which must not be a mark."""
        if not self.stack or self.stack[-1] is _MARK:
            raise NotAPickle("an opcode uses a missing value")
        return self.stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        """Return the items above the last mark."""
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise NotAPickle("no mark")

    def run(self, name: str, argument: Any) -> None:
        """Run one opcode.

        Raises:
            NotAPickle: if PyTorch never writes it, or the stack does not fit.
        """
        if name in _IGNORED:
            return
        if name in _LITERALS:
            self.stack.append(argument)
        elif name in _VALUES:
            self.stack.append(_VALUES[name])
        elif name == "MARK":
            self.stack.append(_MARK)
        else:
            method = getattr(self, f"_op_{name.lower()}", None)
            if method is None:
                raise NotAPickle(f"opcode {name}")
            method(argument)

    def _op_long(self, number: int) -> None:
        """Push an integer of any opcode that can be longer than LONG1."""
        if number.bit_length() >= 8 * MAX_LONG_BYTES:
            raise NotAPickle(f"an integer of more than {MAX_LONG_BYTES} bytes")
        self.stack.append(number)

    _op_int = _op_long4 = _op_long

    def _op_pop(self, _: object) -> None:
        """Drop the top of the stack, which may be a mark."""
        self.stack.pop()

    def _top(self) -> Any:
        """Return the top of the stack and leave it there; it must not be a mark."""
        if not self.stack or self.stack[-1] is _MARK:
            raise NotAPickle("an opcode uses a missing value")
        return self.stack[-1]

    def _op_dup(self, _: object) -> None:
        self.stack.append(self._top())

    def _op_put(self, place: int) -> None:
        """Store the top of the stack in a numbered slot of the memo."""
        self.memo[place] = self._top()

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: object) -> None:
        """Store the top of the stack in the next free slot of the memo."""
        next_free = len(self.memo)
        self.memo[next_free] = self._top()

    def _op_get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _op_binget = _op_long_binget = _op_get

    def _op_global(self, text: str) -> None:
        """Push a class or function that is named in the argument: `module name`."""
        module, _, name = text.partition(" ")
        self._import(module, name)

    def _op_stack_global(self, _: object) -> None:
        """Push a class or function whose module and name are on the stack."""
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise NotAPickle("an import without a name")
        self._import(module, name)

    def _import(self, module: str, name: str) -> None:
        """Record and push a class or function; nothing is imported."""
        imported = Global(module, name)
        self.imports.append(imported)
        self.stack.append(imported)

    def _op_tuple(self, _: object) -> None:
        self._make_tuple(self._pop_to_mark())

    def _make_tuple(self, items: list[Any]) -> None:
        """Push a tuple, unless it unfolds to more values than any checkpoint has."""
        made = tuple(items)
        count = 1
        for item in items:
            count += self.tuples.get(id(item), (item, 1))[1]
        if count > MAX_TUPLE_VALUES:
            raise NotAPickle(f"a tuple unfolds to more than {MAX_TUPLE_VALUES:,} values")
        self.tuples[id(made)] = (made, count)
        self.stack.append(made)

    def _tuple_of(self, count: int) -> None:
        """Replace the top `count` values by a tuple of them."""
        items = [self._pop() for _ in range(count)]
        self._make_tuple(items[::-1])

    def _op_tuple1(self, _: object) -> None:
        self._tuple_of(1)

    def _op_tuple2(self, _: object) -> None:
        self._tuple_of(2)

    def _op_tuple3(self, _: object) -> None:
        self._tuple_of(3)

    def _op_empty_list(self, _: object) -> None:
        self.stack.append([])

    def _op_empty_set(self, _: object) -> None:
        """Push a set, as protocol 2 makes one: by a call of its class with a list."""
        self.stack.append(_set_of("set", []))

    def _op_frozenset(self, _: object) -> None:
        """Push a frozenset of the items above the mark."""
        items = self._pop_to_mark()
        self.stack.append(_set_of("frozenset", items))

    def _op_additems(self, _: object) -> None:
        """Add the items above the mark to the set below it."""
        items = self._pop_to_mark()
        target = self._top()
        if not isinstance(target, Constructed) or name_of(target.function) != "builtins.set":
            raise NotAPickle("items for something that is not a set")
        target.arguments[0].extend(items)  # type: ignore[index]

    def _op_list(self, _: object) -> None:
        self.stack.append(self._pop_to_mark())

    def _op_append(self, _: object) -> None:
        """Append the top of the stack to the list or object below it."""
        self._extend([self._pop()])

    def _op_appends(self, _: object) -> None:
        """Add the items above the mark to the list or object below it."""
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[object]) -> None:
        """Add items to the list, or the object that is filled like one, on top of the stack."""
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        else:
            target.items.extend((None, item) for item in items)

    def _op_empty_dict(self, _: object) -> None:
        self.stack.append(PickleDict())

    def _op_dict(self, _: object) -> None:
        pairs = _pairs(self._pop_to_mark())
        self.stack.append(PickleDict(pairs))

    def _op_setitem(self, _: object) -> None:
        """Add a key and a value to the dict or object below them."""
        value, key = self._pop(), self._pop()
        self._top().items.append((key, value))

    def _op_setitems(self, _: object) -> None:
        """Add the keys and values above the mark to the dict or object below it."""
        pairs = _pairs(self._pop_to_mark())
        self._top().items.extend(pairs)

    def _op_reduce(self, _: object) -> None:
        """Replace a function and its arguments by the object that a call would make.

        A call of `getattr` with a class looks up a name in it, such as a static method.
        """
        arguments, function = self._pop(), self._pop()
        match function, arguments:
            case Global("builtins" | "__builtin__", "getattr"), (Global() as owner, str(name)):
                self.stack.append(Global(owner.module, f"{owner.name}.{name}"))
            case _:
                self._make(Constructed(function, arguments))

    def _op_newobj(self, _: object) -> None:
        """Replace a class and its arguments by an object made with `__new__`."""
        arguments, function = self._pop(), self._pop()
        self._make(Constructed(function, arguments, is_new=True))

    def _op_newobj_ex(self, _: object) -> None:
        """Do as NEWOBJ does, with keyword arguments."""
        keywords, arguments, function = self._pop(), self._pop(), self._pop()
        both = (arguments, keywords)
        self._make(Constructed(function, both, is_new=True))

    def _make(self, constructed: Constructed) -> None:
        """Record and push an object; nothing is called."""
        self.constructed.append(constructed)
        self.stack.append(constructed)

    def _op_build(self, _: object) -> None:
        """Set the state of the object below it, once."""
        state = self._pop()
        target = self._top()
        if not isinstance(target, Constructed):
            raise NotAPickle("a state for something that is not an object")
        if target.state is not None:
            raise NotAPickle("an object whose state is set twice")
        target.state = state

    def _op_binpersid(self, _: object) -> None:
        """Replace a key, usually a tuple, by a reference to an object outside the pickle."""
        key = self._pop()
        self._refer(Persistent(key))

    def _op_persid(self, key: str) -> None:
        """Push a reference whose key is text in the argument (protocol 0)."""
        self._refer(Persistent(key))

    def _refer(self, reference: Persistent) -> None:
        """Record and push a reference; nothing is loaded.

        The old format refers to a class together with its source: this is just the class.
        """
        match reference.key:
            case (kind, Global() as imported, *_) if kind == _MODULE_REFERENCE:
                self.stack.append(imported)
            case _:
                self.references.append(reference)
                self.stack.append(reference)


def _set_of(name: str, items: list[object]) -> Constructed:
    """Return a set or frozenset of these items."""
    return Constructed(Global("builtins", name), (items,))


def _pairs(items: list[Any]) -> list[tuple[object, object]]:
    """Group alternating keys and values."""
    if len(items) % 2:
        raise NotAPickle("a key without a value")
    keys, values = items[::2], items[1::2]
    return list(zip(keys, values, strict=True))


def reachable(value: object) -> ParsedPickle:
    """Return a part of a parsed pickle, with the names and calls that unpickling it would use."""
    imports = dict[Global, None]()
    constructed = list[Constructed]()
    references = list[Persistent]()
    for node in _walk(value):
        if isinstance(node, Global):
            imports[node] = None
        elif isinstance(node, Constructed):
            constructed.append(node)
        elif isinstance(node, Persistent):
            references.append(node)
    return ParsedPickle(value, tuple(imports), tuple(constructed), tuple(references))


def marks_above(root: object, mark_of: Callable[[object], str | None]) -> dict[int, str]:
    """Return the marks of all nodes that have one or hold a node with one, by their ids.

    A node that has none gets that of a node as few levels below it as any other. Each node is
    visited once, however many hold it.
    """
    nodes = list(_walk(root))
    marks = dict[int, str]()
    for node in nodes:
        mark = mark_of(node)
        if mark is not None:
            marks[id(node)] = mark
    if not marks:
        return marks
    holders = dict[int, list[int]]()
    for node in nodes:
        for part in _parts(node):
            holders.setdefault(id(part), []).append(id(node))
    todo = deque(marks)
    while todo:
        place = todo.popleft()
        for holder in holders.get(place, ()):
            if holder not in marks:
                marks[holder] = marks[place]
                todo.append(holder)
    return marks


def _walk(value: object) -> Iterator[object]:
    """Yield a node and every node below it, each once and in order."""
    visited = set[int]()
    todo = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, str | int | float | bytes) or node is None:
            continue
        if id(node) in visited:
            continue
        visited.add(id(node))
        yield node
        todo.extend(reversed(_parts(node)))


def _parts(node: object) -> list[object]:
    """Return the nodes directly below a node."""
    if isinstance(node, tuple | list):
        return list(node)
    if isinstance(node, Persistent):
        return [node.key]
    parts = list[object]()
    if isinstance(node, Constructed):
        parts = [node.function, node.arguments]
    if isinstance(node, Constructed | PickleDict):
        for pair in node.items:
            parts += pair
    if isinstance(node, Constructed):
        parts.append(node.state)
    return parts
