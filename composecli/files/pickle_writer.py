"""Writing a parsed pickle, or a part of one, as a pickle of its own.

The result has the opcodes that PyTorch's restricted unpickler reads, whatever the protocol of
the file. It holds just the nodes that were checked, so that PyTorch reads nothing else.

Source of the format: `pickletools` in the standard library, protocol 2.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from composecli.files.pickle import (
    MAX_LONG_BYTES,
    Constructed,
    Global,
    NotAPickle,
    Persistent,
    PickleDict,
)

_CONSTANTS = {None: b"N", True: b"\x88", False: b"\x89"}
_END = object()


@dataclass(frozen=True, slots=True)
class Written:
    """A pickle, and the keys of the storages that it refers to, each once."""

    data: bytes
    storages: tuple[str, ...]


def write(value: object) -> Written:
    """Return a pickle of the value, with every storage on the CPU.

    Nodes that are shared stay shared. However deep they are nested, the stack of Python is not
    used.

    Raises:
        NotAPickle: if a node cannot be written: bytes, or a tuple inside itself.
    """
    writer = _Writer()
    running = [iter([value])]
    while running:
        child = next(running[-1], _END)
        if child is _END:
            running.pop()
        elif type(child) in writer.containers:
            running.append(writer.write(child))
        else:
            writer.data += _literal(child)
    return Written(bytes(writer.data + pickle.STOP), tuple(writer.storages))


class _Writer:
    """Writes nodes with parts. Each method yields the nodes that belong at that place."""

    def __init__(self) -> None:
        self.data = bytearray(pickle.PROTO + b"\x02")
        self._memo = dict[int, int]()
        # The memo is by identity: a node in it must not be freed.
        self._stored = list[object]()
        self._unfinished = set[int]()
        self.storages = dict[str, None]()
        self.containers: dict[type, Callable[[Any], Iterator[object]]] = {
            tuple: self._write_tuple,
            list: self._write_list,
            PickleDict: self._write_dict,
            Constructed: self._write_constructed,
            Persistent: self._write_reference,
        }

    def write(self, node: object) -> Iterator[object]:
        """Write a node, or a reference to it if it was written before.

        Raises:
            NotAPickle: if the node is inside itself.
        """
        place = self._memo.get(id(node))
        if place is not None:
            self.data += pickle.LONG_BINGET + struct.pack("<I", place)
            return
        if id(node) in self._unfinished:
            raise NotAPickle("an object inside itself")
        self._unfinished.add(id(node))
        yield from self.containers[type(node)](node)
        self._unfinished.discard(id(node))

    def _store(self, node: object) -> None:
        """Store the node on top of the stack in the memo."""
        place = len(self._memo)
        self._memo[id(node)] = place
        self._stored.append(node)
        self.data += pickle.LONG_BINPUT + struct.pack("<I", place)

    def _write_tuple(self, node: tuple[object, ...]) -> Iterator[object]:
        self.data += pickle.MARK
        yield from node
        self.data += pickle.TUPLE
        self._store(node)

    def _write_list(self, node: list[object]) -> Iterator[object]:
        self.data += pickle.EMPTY_LIST
        self._store(node)
        self.data += pickle.MARK
        yield from node
        self.data += pickle.APPENDS

    def _write_dict(self, node: PickleDict) -> Iterator[object]:
        self.data += pickle.EMPTY_DICT
        self._store(node)
        yield from self._write_items(node.items)

    def _write_items(self, items: list[tuple[object, object]]) -> Iterator[object]:
        """Add keys and values to the dict on top of the stack."""
        if not items:
            return
        self.data += pickle.MARK
        for key, value in items:
            yield key
            yield value
        self.data += pickle.SETITEMS

    def _write_constructed(self, node: Constructed) -> Iterator[object]:
        """Write the call, then the items added to its result, as the pickler of Python does."""
        yield node.function
        yield node.arguments
        call = pickle.REDUCE
        if node.is_new:
            call = pickle.NEWOBJ
        self.data += call
        self._store(node)
        yield from self._write_items(node.items)
        if node.state is not None:
            yield node.state
            self.data += pickle.BUILD

    def _write_reference(self, node: Persistent) -> Iterator[object]:
        """Write a reference to a storage, on the CPU."""
        match node.key:
            case ("storage", storage_class, str(key), _, count):
                self.storages[key] = None
                yield ("storage", storage_class, key, "cpu", count)
            case _:
                raise NotAPickle("a reference to something that is not a storage")
        self.data += pickle.BINPERSID
        self._store(node)


def _literal(node: object) -> bytes:
    """Return the bytes of a node without parts."""
    if node is None or isinstance(node, bool):
        return _CONSTANTS[node]
    if isinstance(node, int):
        return _integer(node)
    if isinstance(node, float):
        return pickle.BINFLOAT + struct.pack(">d", node)
    if isinstance(node, str):
        encoded = node.encode("utf-8", "surrogatepass")
        return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded
    if isinstance(node, Global):
        return _import(node)
    raise NotAPickle(f"a {type(node).__name__} in the place of an object")


def _integer(number: int) -> bytes:
    """Return the bytes of an integer: 4 of them, or as many as it needs."""
    if -(2**31) <= number < 2**31:
        return pickle.BININT + struct.pack("<i", number)
    encoded = pickle.encode_long(number)
    if len(encoded) > MAX_LONG_BYTES:
        raise NotAPickle("a huge number")
    return pickle.LONG1 + bytes((len(encoded),)) + encoded


def _import(name: Global) -> bytes:
    """Return the bytes of an import, whose names must be plain ones."""
    for word in (*name.module.split("."), *name.name.split(".")):
        if not word.isidentifier():
            raise NotAPickle("an import without a plain name")
    return pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode()
