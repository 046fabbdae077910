"""The scan of TorchScript: compile every function of an archive, run none, and look up each op.

The code is put into a stand-in archive, whose only module refers to all classes in a field that is
typed as a tuple of integers. PyTorch then compiles the code of each class, but creates no object of
any, so that no `__setstate__` runs. The compiled graphs are searched rather than the source text,
which can disguise what it calls.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import torch

from composecli.files.archive import Archive
from composecli.files.pickle import Global
from composecli.files.safety.allowlist import CLASSES, allowed
from composecli.files.safety.refusals import Reason
from composecli.files.torchscript import classes, pickles
from composecli.runtime.loading.extensions import refuse_unregistered_code

MAX_NODES = 2_000_000
_SCAN = "code/__torch__/composecli_scan.py"
_NATIVE = re.compile(r"__torch__\.torch\.classes\.[\w.]+")


def unsafe_ops(archive: Archive, also: frozenset[str] = frozenset()) -> Iterator[Reason]:
    """Yield each op and extension class, once, that is neither on the allowlist nor in `also`.

    The reason names one function that uses it.

    Raises:
        RuntimeError: if the code does not compile.
        NotRegistered: if it uses an op that is not loaded: nothing can be said about such code.
    """
    refuse_unregistered_code(archive)
    allow = allowed() | also
    reported = set[str]()
    for function in _compile(archive):
        for name in _names_not_allowed(function.graph, allow):
            if name in reported:
                continue
            reported.add(name)
            where = function.qualified_name.removeprefix("__torch__.")
            text = f"it uses {name} in {where}"
            if "::" in name:
                yield Reason(text, name)
            else:
                yield Reason(text, None)


def _compile(archive: Archive) -> list[Any]:
    """Return every function of the archive's code, compiled."""
    parsed = pickles(archive)
    constants = parsed["constants.pkl"].value
    count = 0
    if isinstance(constants, tuple | list):
        count = len(constants)
    names = classes(parsed)
    stand_in = _stand_in(archive, names, count)
    unit = torch._C.CompilationUnit()
    try:
        torch._C.import_ir_module_from_buffer(unit, stand_in, torch.device("cpu"), {}, False)
    except RuntimeError as error:
        refuse_unregistered_code(archive, error)
        raise
    return list(unit.get_functions())


def _stand_in(archive: Archive, names: tuple[Global, ...], constants: int) -> bytes:
    """Return an archive with the same code, a module that names the classes, and no values."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name in sorted(archive.names):
        is_code = name.startswith("code/") and name.endswith(".py")
        if is_code and name != _SCAN:
            data = archive.read(name)
            writer.write_record(name, data, len(data))
    members = {
        _SCAN: _scan_code(len(names)),
        "data.pkl": _scan_pickle(names),
        "constants.pkl": _empty_tensors_pickle(constants),
    }
    for name, data in members.items():
        writer.write_record(name, data, len(data))
    for number in range(constants):
        writer.write_record(f"constants/{number}", b"", 0)
    writer.write_end_of_file()
    return buffer.getvalue()


def _scan_code(count: int) -> bytes:
    """Return the source of the class `Scan`, with one field that is a tuple of `count` integers."""
    fields = ", ".join(["int"] * count) or "()"
    lines = (
        "class Scan(Module):",
        "  __parameters__ = []",
        "  __buffers__ = []",
        f"  names : Tuple[{fields}]",
    )
    source = "".join(f"{line}\n" for line in lines)
    return source.encode()


def _scan_pickle(names: tuple[Global, ...]) -> bytes:
    """Return the pickle of a `Scan` object whose field `names` is the tuple of these classes."""
    pushed = list[bytes]()
    for name in names:
        module = name.module.encode()
        pushed.append(b"c%s\n%s\n" % (module, name.name.encode()))
    head = b"\x80\x02c__torch__.composecli_scan\nScan\n)\x81}(X\x05\x00\x00\x00names("
    return head + b"".join(pushed) + b"tub."


def _empty_tensors_pickle(count: int) -> bytes:
    """Return the pickle of a tuple of empty tensors, whose storages are named "0", "1", ..."""
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n"
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX%s%sX\x03\x00\x00\x00cpu"
        b"K\x00tQK\x00K\x00\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    tensors = list[bytes]()
    for number in range(count):
        key = str(number).encode()
        length = len(key).to_bytes(4, "little")
        tensors.append(tensor % (length, key))
    return b"\x80\x02(" + b"".join(tensors) + b"t."


def _names_not_allowed(graph: Any, allow: frozenset[str]) -> Iterator[str]:
    """Yield the ops and extension classes of a graph, inner ones included, that are not allowed."""
    todo = [graph]
    count = 0
    while todo:
        block = todo.pop()
        for node in block.nodes():
            count += 1
            if count > MAX_NODES:
                yield "more ops than any model has"
                return
            if node.kind() not in allow:
                yield node.kind()
            todo += node.blocks()
            todo += [node.g(name) for name in node.attributeNames() if node.kindOf(name) == "g"]
            for value in node.outputs():
                yield from _extension_classes(str(value.type()))


def _extension_classes(type_text: str) -> Iterator[str]:
    """Yield the classes of C++ extensions in the text of a type, except the allowed ones."""
    for name in _NATIVE.findall(type_text):
        if name not in CLASSES:
            yield name
