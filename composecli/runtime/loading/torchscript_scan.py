"""The scan of TorchScript: every function that an archive holds is compiled, none is run, and each op is looked up.

A module in the archive's place names all of its classes as plain numbers, so that PyTorch compiles their code and makes
no object of them: no `__setstate__` runs. Then the graphs are walked. Text is not looked at: it hides what it calls.
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

MOST_NODES = 2_000_000
_SCAN = "code/__torch__/composecli_scan.py"
_NATIVE = re.compile(r"__torch__\.torch\.classes\.[\w.]+")


def unsafe_ops(archive: Archive, also: frozenset[str] = frozenset()) -> Iterator[Reason]:
    """Each op and class of an extension, once, that is neither on the list nor in `also`, with a function that has it.

    Raises:
        RuntimeError: the code does not compile.
    """
    allow, seen = allowed() | also, set[str]()
    for function in _compiled(archive):
        for found in _beyond(function.graph, allow):
            if found not in seen:
                seen.add(found)
                where = function.qualified_name.removeprefix("__torch__.")
                yield Reason(f"it uses {found} in {where}", found if "::" in found else None)


def _compiled(archive: Archive) -> list[Any]:
    """Every function of the archive's code, compiled."""
    walked = pickles(archive)
    named = classes(walked)
    held = walked["constants.pkl"].value
    constants = len(held) if isinstance(held, tuple | list) else 0
    unit = torch._C.CompilationUnit()
    data = _stand_in(archive, named, constants)
    torch._C.import_ir_module_from_buffer(unit, data, torch.device("cpu"), {}, False)
    return list(unit.get_functions())


def _stand_in(archive: Archive, named: tuple[Global, ...], constants: int) -> bytes:
    """An archive with the same code, whose module holds the classes as numbers; its constants are empty tensors."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    for name in sorted(archive.names):
        if name.startswith("code/") and name.endswith(".py") and name != _SCAN:
            data = archive.read(name)
            writer.write_record(name, data, len(data))
    numbers = f"Tuple[{', '.join(['int'] * len(named))}]" if named else "Tuple[()]"
    code = f"class Scan(Module):\n  __parameters__ = []\n  __buffers__ = []\n  names : {numbers}\n".encode()
    globals_ = b"".join(b"c%s\n%s\n" % (name.module.encode(), name.name.encode()) for name in named)
    module = (
        b"\x80\x02c__torch__.composecli_scan\nScan\n)\x81}(X\x05\x00\x00\x00names("
        + globals_
        + b"tub."
    )
    for name, data in (
        (_SCAN, code),
        ("data.pkl", module),
        ("constants.pkl", _empty_tensors(constants)),
    ):
        writer.write_record(name, data, len(data))
    for number in range(constants):
        writer.write_record(f"constants/{number}", b"", 0)
    writer.write_end_of_file()
    return buffer.getvalue()


def _empty_tensors(count: int) -> bytes:
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX%s%sX\x03\x00\x00\x00cpu"
        b"K\x00tQK\x00K\x00\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    )
    keys = [str(number).encode() for number in range(count)]
    return (
        b"\x80\x02("
        + b"".join(tensor % (len(key).to_bytes(4, "little"), key) for key in keys)
        + b"t."
    )


def _beyond(graph: Any, allow: frozenset[str]) -> Iterator[str]:
    """What is not allowed in a graph and in the blocks and graphs below it."""
    todo, count = [graph], 0
    while todo:
        block = todo.pop()
        for node in block.nodes():
            count += 1
            if count > MOST_NODES:
                yield "more ops than any model has"
                return
            kind = node.kind()
            if kind not in allow:
                yield kind
            todo += node.blocks()
            todo += [node.g(name) for name in node.attributeNames() if node.kindOf(name) == "g"]
            for value in node.outputs():
                yield from _native(str(value.type()))


def _native(text: str) -> Iterator[str]:
    yield from (found for found in _NATIVE.findall(text) if found not in CLASSES)
