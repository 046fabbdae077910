"""The submodule of a TorchScript archive in which a forward failed, read from the error's trace.

Each frame of the trace shows the line of serialized code that was running:

      x1 = (_1).forward(x0, )
            ~~~~~~~~~~~ <--- HERE

The code of the module says what the variable is: `_1 = getattr(ls, "1")`, and `ls = self.ls`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch

_SERIALIZED = "Traceback of TorchScript, serialized code"
_ORIGINAL = "Traceback of TorchScript, original code"
_FRAME = re.compile(r'  File ".*", line \d+, in (\w+)')
_MARK = re.compile(r"\s*(~+) <--- HERE")
_CALL = re.compile(r"\(?(?P<owner>\w+(\.\w+)*)\)\.(?P<method>\w+)")
_SELF = re.compile(r"def \w+\((\w+)")
MAX_DEPTH = 64


class _Frame(NamedTuple):
    """One frame: the method that was running, and the text at its mark."""

    method: str
    marked: str


def failed_submodule(module: torch.jit.ScriptModule, error: BaseException) -> str | None:
    """Return the name of the innermost submodule in the trace of an error; None if not known.

    It is None, too, if the module itself failed.
    """
    names = list[str]()
    current = module
    for frame in _frames(str(error)):
        call = _CALL.match(frame.marked)
        if call is None:
            continue
        code = _code(current, frame.method)
        steps = _resolve(call["owner"], code, 0)
        if steps is None:
            break
        for step in steps:
            current = getattr(current, step, None)
        if not isinstance(current, torch.jit.ScriptModule):
            break
        names += steps
    return ".".join(names) or None


def _frames(text: str) -> Iterator[_Frame]:
    """Yield the frames of serialized code, the outermost first."""
    _, _, trace = text.partition(_SERIALIZED)
    trace, _, _ = trace.partition(_ORIGINAL)
    method = ""
    previous = ""
    for line in trace.splitlines():
        frame = _FRAME.match(line)
        mark = _MARK.match(line)
        if frame is not None:
            method = frame[1]
        elif mark is not None:
            yield _Frame(method, previous[mark.start(1) :])
        previous = line


def _code(module: torch.jit.ScriptModule, method: str) -> str:
    """Return the serialized code of a method; empty if the module has no such method."""
    if not module._c._has_method(method):
        return ""
    return str(module._c._get_method(method).code)


def _resolve(variable: str, code: str, depth: int) -> list[str] | None:
    """Return the steps from the module to the submodule that a variable is; None if not known."""
    first, *attributes = variable.split(".")
    own = _SELF.search(code)
    if own is not None and first == own[1]:
        return attributes
    if depth > MAX_DEPTH:
        return None
    found = re.search(
        rf"^\s*{first} = (getattr\((?P<base>[\w.]+), \"(?P<key>[^\"]+)\"\)|(?P<path>[\w.]+))$",
        code,
        re.MULTILINE,
    )
    if found is None:
        return None
    if found["path"]:
        steps = _resolve(found["path"], code, depth + 1)
    else:
        steps = _resolve(found["base"], code, depth + 1)
    if steps is None:
        return None
    if found["key"]:
        steps = [*steps, found["key"]]
    return [*steps, *attributes]
