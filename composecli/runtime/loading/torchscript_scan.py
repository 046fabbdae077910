"""The scan of TorchScript: compile every function of an archive, run none, and look up each op.

The code is put into a stand-in archive, whose only module refers to all classes in a field that is
typed as a tuple of integers. PyTorch then compiles the code of each class, but creates no object of
any, so that no `__setstate__` runs. The compiled graphs are searched rather than the source text,
which can disguise its calls.
"""

from __future__ import annotations

import io
import re
import secrets
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from composecli.files.archive import Archive
from composecli.files.pickle import Constructed, Global, Persistent, PickleDict
from composecli.files.pickle_writer import write
from composecli.files.safety.allowlist import CLASSES, allowed
from composecli.files.safety.refusals import Reason
from composecli.files.torchscript import (
    check_debug_pickles,
    classes,
    has_hooks,
    pickles,
    stored_integers,
)
from composecli.runtime.loading.extensions import refuse_unregistered_code
from composecli.runtime.loading.script_casts import is_trusted_blindly
from composecli.runtime.loading.script_origins import Origins

MAX_NODES = 2_000_000
_FOLDER = "archive"
# Ops are compiled as those of the version that the archive was saved with.
_COPIED = re.compile(r"code/.*\.py|version|\.data/version")
_NATIVE = re.compile(r"__torch__\.torch\.classes\.[\w.]+")


def unsafe_ops(archive: Archive, also: frozenset[str] = frozenset()) -> Iterator[Reason]:
    """Yield each op and extension class, once, that is neither on the allowlist nor in `also`.

    The reason names one function that uses it.

    Raises:
        RuntimeError: if the code does not compile.
        NotRegistered: if it uses an op that is not loaded: nothing can be said about such code.
    """
    refuse_unregistered_code(archive)
    yield from check_debug_pickles(archive)
    allow = allowed() | also
    reported = set[str]()
    functions = _compile(archive)
    for function in functions:
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
    yield from _unproved_enums(archive, functions)


def _unproved_enums(archive: Archive, functions: Iterable[Any]) -> Iterator[Reason]:
    """Yield each op, once, that may be given a number that is no dtype for a dtype."""
    origins = Origins(functions, stored_integers(archive), has_hooks=has_hooks(archive))
    reported = set[str]()
    for op, function, enum in origins.without_proof():
        if op not in reported:
            reported.add(op)
            where = function.removeprefix("__torch__.")
            yield Reason(f"{op} in {where} may be given a number that is no {enum.words}")


def _compile(archive: Archive) -> list[Any]:
    """Return every function of the archive's code, compiled."""
    stand_in = _stand_in(archive)
    unit = torch._C.CompilationUnit()
    try:
        torch._C.import_ir_module_from_buffer(unit, stand_in, torch.device("cpu"), {}, False)
    except RuntimeError as error:
        refuse_unregistered_code(archive, error)
        raise
    except Exception as error:
        # PyTorch turns C++'s exceptions into those of Python with the closest name.
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
    return list(unit.get_functions())


def _stand_in(archive: Archive) -> bytes:
    """Return an archive with the same code, a module that names the classes, and no values."""
    parsed = pickles(archive)
    names = classes(parsed)
    module = _own_name(archive)
    constants = write(_emptied(parsed["constants.pkl"].value))
    members = {
        f"code/__torch__/{module}.py": _scan_code(len(names)),
        "data.pkl": _scan_pickle(module, names),
        "constants.pkl": constants.data,
    }
    for key in constants.storages:
        members[f"constants/{key}"] = b""
    for name in sorted(archive.names):
        if _COPIED.fullmatch(name):
            members[name] = archive.read(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as stand_in:
        for name, data in members.items():
            stand_in.writestr(f"{_FOLDER}/{name}", data)
    return buffer.getvalue()


def _own_name(archive: Archive) -> str:
    """Return the name of a source that the archive cannot have, in any case of its letters."""
    while True:
        module = f"composecli_scan_{secrets.token_hex(8)}"
        if not any(module in name.casefold() for name in archive.names):
            return module


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


def _scan_pickle(module: str, names: tuple[Global, ...]) -> bytes:
    """Return the pickle of a `Scan` object whose field `names` is the tuple of these classes."""
    scan = Constructed(Global(f"__torch__.{module}", "Scan"), (), is_new=True)
    scan.state = PickleDict([("names", names)])
    return write(scan).data


def _emptied(node: object) -> object:
    """Return the constants of the code with an empty tensor in the place of each tensor.

    Texts and containers stay: PyTorch compares the types of constants with those in the code.
    """
    match node:
        case Constructed(Global("torch._utils"), _):
            return _empty_tensor()
        case Constructed(function, arguments):
            return Constructed(function, _emptied(arguments))
        case tuple():
            return tuple(map(_emptied, node))
        case list():
            return list(map(_emptied, node))
        case PickleDict(items):
            return PickleDict([(key, _emptied(value)) for key, value in items])
    return node


def _empty_tensor() -> Constructed:
    """Return the node of a tensor without elements."""
    hooks = Constructed(Global("collections", "OrderedDict"), ())
    storage = Persistent(("storage", Global("torch", "FloatStorage"), "empty", "cpu", 0))
    arguments = (storage, 0, (0,), (1,), False, hooks)
    return Constructed(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


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
            elif is_trusted_blindly(node):
                yield "a cast whose type nothing proves"
            todo += node.blocks()
            todo += [node.g(name) for name in node.attributeNames() if node.kindOf(name) == "g"]
            for value in node.outputs():
                yield from _extension_classes(str(value.type()))


def _extension_classes(type_text: str) -> Iterator[str]:
    """Yield the classes of C++ extensions in the text of a type, except the allowed ones."""
    for name in _NATIVE.findall(type_text):
        if name not in CLASSES:
            yield name
