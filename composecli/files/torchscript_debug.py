"""The pickles beside TorchScript code that map it to its original source, `*.py.debug_pkl`.

PyTorch reads one when it has to show a line of code: with the C++ unpickler, which trusts its
input. They are long, and hold only numbers, texts, tuples and lists of numbers. So they are checked
byte by byte, without making the values.

Source of the format: `torch/csrc/jit/serialization/source_range_serialization.cpp`, and
`pickletools` in the standard library for the opcodes.
"""

from __future__ import annotations

import pickle

from composecli.files.torchscript_values import NotWritten

# PyTorch frees nested values by recursion. The values of its own pickles nest eight deep.
MAX_DEPTH = 64

_START = b"\x80\x02"
# The only function: it makes a list of integers.
_LIST = b"ctorch.jit._pickle\nbuild_intlist\n"
# Opcodes that push a value, by the length of their arguments.
_PUSHES = {
    pickle.BININT1[0]: 1,
    pickle.BININT2[0]: 2,
    pickle.BININT[0]: 4,
    pickle.NONE[0]: 0,
    pickle.NEWTRUE[0]: 0,
    pickle.NEWFALSE[0]: 0,
    pickle.EMPTY_TUPLE[0]: 0,
    pickle.EMPTY_LIST[0]: 0,
    pickle.BINFLOAT[0]: 8,
}
_TUPLES = {pickle.TUPLE1[0]: 1, pickle.TUPLE2[0]: 2, pickle.TUPLE3[0]: 3}
_LONG_BYTES = 8


def check_debug_pickle(data: bytes) -> None:
    """Check that a pickle holds nothing but plain data.

    Raises:
        NotWritten: if PyTorch does not write such a pickle.
    """
    try:
        _Depths(data).run()
    except IndexError:
        raise NotWritten("a pickle that ends early") from None


class _Depths:
    """The stack of the pickle machine, with the depth of each value in its place."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._stack = list[int]()
        self._marks = list[int]()
        self._memo = list[int]()

    def run(self) -> None:
        """Run the opcodes up to the last byte.

        Raises:
            NotWritten: if there is another opcode, or the stack does not fit.
            IndexError: if the pickle ends early.
        """
        data = self._data
        place = len(_START)
        if data[:place] != _START:
            raise NotWritten("a pickle of another protocol")
        pushes, stack = _PUSHES, self._stack
        while True:
            code = data[place]
            length = pushes.get(code)
            if length is not None:
                stack.append(0)
                place += 1 + length
            elif code == pickle.STOP[0]:
                break
            else:
                place = self._step(code, place)
        if place + 1 != len(data) or len(stack) != 1 or self._marks:
            raise NotWritten("a pickle with more than one value")

    def _step(self, code: int, place: int) -> int:
        """Run an opcode that uses the stack or has a long argument, and return where it ends."""
        data = self._data
        if code == pickle.BINPUT[0]:
            self._put(data[place + 1])
            return place + 2
        if code == pickle.BINGET[0]:
            self._stack.append(self._memo[data[place + 1]])
            return place + 2
        if code == pickle.MARK[0]:
            self._marks.append(len(self._stack))
            return place + 1
        if code in _TUPLES or code == pickle.TUPLE[0]:
            self._make_tuple(_TUPLES.get(code))
            return place + 1
        if code == pickle.LONG_BINPUT[0]:
            self._put(_number(data, place + 1))
            return place + 5
        if code == pickle.LONG_BINGET[0]:
            self._stack.append(self._memo[_number(data, place + 1)])
            return place + 5
        return self._rare_step(code, place)

    def _rare_step(self, code: int, place: int) -> int:
        """Run an opcode of a text or of a list, and return where it ends."""
        data = self._data
        if code == pickle.BINUNICODE[0]:
            self._stack.append(0)
            return place + 5 + _number(data, place + 1)
        if code == pickle.LONG1[0] and data[place + 1] == _LONG_BYTES:
            self._stack.append(0)
            return place + 2 + _LONG_BYTES
        if code == pickle.APPENDS[0]:
            depth = self._pop(len(self._stack) - self._marks.pop())
            self._push(max(depth, self._pop(1)))
            return place + 1
        if code == pickle.GLOBAL[0] and data.startswith(_LIST, place):
            self._stack.append(0)
            return place + len(_LIST)
        if code == pickle.REDUCE[0]:
            self._push(self._pop(2))
            return place + 1
        raise NotWritten(f"an opcode that PyTorch does not write: {code:#x}")

    def _make_tuple(self, count: int | None) -> None:
        """Replace the top values by a tuple of them: `count`, or those above the mark."""
        if count is None:
            count = len(self._stack) - self._marks.pop()
        self._push(1 + self._pop(count))

    def _pop(self, count: int) -> int:
        """Remove values of the top, and return the largest of their depths.

        Raises:
            NotWritten: if there are fewer above the last mark.
        """
        start = len(self._stack) - count
        floor = 0
        if self._marks:
            floor = self._marks[-1]
        if count < 0 or start < floor:
            raise NotWritten("an opcode that uses a missing value")
        deepest = max(self._stack[start:], default=0)
        del self._stack[start:]
        return deepest

    def _push(self, depth: int) -> None:
        """Push a value.

        Raises:
            NotWritten: if it is nested deeper than in any pickle of PyTorch.
        """
        if depth > MAX_DEPTH:
            raise NotWritten("values that are nested too deep")
        self._stack.append(depth)

    def _put(self, place: int) -> None:
        """Store the depth of the top value in the memo, which is filled from its start."""
        if place > len(self._memo):
            raise NotWritten("a place in the memo that PyTorch does not use")
        self._memo[place : place + 1] = [self._stack[-1]]


def _number(data: bytes, place: int) -> int:
    """Return the four bytes at a place as a number."""
    return int.from_bytes(data[place : place + 4], "little")
