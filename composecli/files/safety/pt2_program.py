"""Finding the code that a torch.export archive would run, from its JSON.

PyTorch evaluates its size expressions and guards, generates Python source from its names, looks its
targets up in torch, and unpickles weights if the index asks for that. Each of these is compared
with the output of an export, and anything else is a reason not to load the archive.

Source of the format: `torch/_export/serde/schema.py`, schema major version 8, and
`torch/export/pt2_archive`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from composecli.files.archive import Archive, NotAnArchive
from composecli.files.checkpoint import is_inert, is_plain_part
from composecli.files.pickle import NotAPickle
from composecli.files.pt2_layout import (
    IndexEntry,
    dtype_of,
    geometry_of,
    index_entries,
    is_known_member,
    is_object_record,
    is_program,
    is_record_name,
    is_sample_inputs,
)
from composecli.files.safety.allowlist import allowed
from composecli.files.safety.extension_ops import is_extension
from composecli.files.safety.plain_code import is_plain_expression, is_plain_guard
from composecli.files.safety.refusals import Reason
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes

MAX_SHOWN_LENGTH = 60

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names of parameters and modules, in state dicts and in stack traces.
_PATH = re.compile(r"[\w.\-\[\]'\"@ ()]*")
# Keys whose texts become Python source, or names of arguments in it.
_IDENTIFIER_KEYS = ("name", "as_name", "graph_name", "class_fqn")
# Keys of objects whose own keys are the names of values.
_VALUE_TABLES = (
    "tensor_values",
    "sym_int_values",
    "sym_bool_values",
    "sym_float_values",
    "custom_obj_values",
)
_ATEN = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\.\w+)?")
_OTHER_TARGETS = (
    re.compile(
        r"_operator\.(add|sub|mul|neg|pow|floordiv|mod|truediv|eq|ne|lt|le|gt|ge|and_|or_|not_"
        r"|getitem|pos|abs|lshift|rshift)"
    ),
    re.compile(
        r"math\.(ceil|floor|trunc|sqrt|log2|log|exp|sin|cos|tan|asin|acos|atan|sinh|cosh|tanh"
        r"|round)"
    ),
    re.compile(r"torch\.(sym_\w+|_sym_sqrt)"),
    re.compile(
        r"torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan"
        r"|wrap_with_set_grad_enabled|wrap_with_autocast|checkpoint|wrap_activation_checkpoint"
        r"|tag_activation_checkpoint|flex_attention)"
    ),
)


def unsafe_parts(archive: Archive) -> Iterator[Reason]:
    """Yield the reasons not to load the archive; each names the member and the part of it."""
    for name in sorted(archive.names):
        if not is_known_member(name):
            yield Reason(f"a member that torch.export does not write: {name}")
        elif is_program(name):
            yield from _check_program(archive.json(name))
        elif name.startswith("data/") and name.endswith(".json"):
            yield from _check_index(name, archive.json(name))
        elif name.startswith("data/") and name.endswith(".pt"):
            yield from _check_sample_inputs(archive, name)


def record_problems(archive: Archive) -> Iterator[str]:
    """Yield a message for each tensor that reaches behind the end of its record."""
    for entry in index_entries(archive):
        if entry.is_plain:
            yield from _check_record(archive, entry)


def _check_record(archive: Archive, entry: IndexEntry) -> Iterator[str]:
    """Yield why a plain tensor does not lie inside its record."""
    meta = entry.payload["tensor_meta"]
    assert meta is not None
    try:
        item_size = dtype_of(meta).size
        sizes, strides, offset = geometry_of(meta)
        numbers = (offset, *sizes, *strides)
        are_natural = all(type(number) is int and number >= 0 for number in numbers)
        last = offset
        for size, stride in zip(sizes, strides, strict=True):
            last += (size - 1) * stride
    except (KeyError, TypeError, ValueError):
        yield f"{entry.name} has invalid sizes"
        return
    if entry.record not in archive.names:
        yield f"the record of {entry.name} is missing"
        return
    end = (last + 1) * item_size
    record_size = archive.size(entry.record)
    reaches_behind = 0 not in sizes and end > record_size
    if not are_natural or reaches_behind:
        yield f"{entry.name} reaches to byte {end:,} of {record_size:,}"


def _check_index(member: str, data: Any) -> Iterator[Reason]:
    """Yield a reason for each entry that is pickled or has no plain record."""
    entries = data.get("config") if isinstance(data, dict) else None
    if not isinstance(entries, dict):
        return
    for name, payload in entries.items():
        is_pickled = not isinstance(payload, dict) or payload.get("use_pickle") is not False
        if is_pickled:
            yield Reason(f"{member} has {name} in a pickle")
            continue
        path_name = payload.get("path_name")
        if not is_record_name(path_name):
            yield Reason(f"{member} has {name} at {path_name}")
        elif is_object_record(path_name):
            yield Reason(f"{member} has {name} as an object")


def _check_sample_inputs(archive: Archive, name: str) -> Iterator[Reason]:
    """Check the example inputs: a checkpoint that PyTorch unpickles without restrictions."""
    if not is_sample_inputs(name):
        yield Reason(f"{name} is a pickle")
        return
    data = archive.read(name)
    # `torch.export.save` writes an empty member if there are no example inputs.
    if not data:
        return
    try:
        with Archive.of_bytes(data) as inner:
            parsed = inner.pickle("data.pkl")
            problems = tuple(find_out_of_bounds(parsed, record_sizes(inner, "data/")))
    except (NotAPickle, NotAnArchive) as error:
        yield Reason(f"{name}: {error}")
        return
    foreign = [imported for imported in parsed.imports if not is_inert(imported)]
    for imported in foreign:
        yield Reason(f"{name} would import {imported}")
    for problem in problems:
        yield Reason(f"{name}: {problem}")
    if not foreign and not is_plain_part(parsed):
        yield Reason(f"{name} is more than tensors, numbers and texts")


def _check_program(program: Any) -> Iterator[Reason]:
    """Check every key and text of a program, at any depth."""
    if not isinstance(program, dict):
        yield Reason("its program is not a JSON object")
        return
    yield from _check_guards(program.get("guards_code", []))
    stack: list[tuple[str, Any]] = [("", program)]
    while stack:
        key, value = stack.pop()
        if key in ("in_spec", "out_spec") and value is not None:
            yield from _check_structure(value)
        if isinstance(value, dict):
            yield from _check_value_names(key, value)
            stack += value.items()
        elif isinstance(value, list):
            stack += ((key, item) for item in value)
        elif isinstance(value, str):
            yield from _check_text(key, value)


def _check_guards(guards: Any) -> Iterator[Reason]:
    """Check the guards, which PyTorch evaluates as Python code."""
    if not isinstance(guards, list):
        guards = [guards]
    for guard in guards:
        if not isinstance(guard, str) or not is_plain_guard(guard):
            yield Reason(f"it evaluates the guard {_shorten(guard)}")


def _check_structure(text: Any) -> Iterator[Reason]:
    """Check a pytree spec: PyTorch imports the enums and the factories that it names."""
    try:
        stack = [json.loads(text)[1]]
        while stack:
            spec = stack.pop()
            kind, context = spec["type"], spec["context"]
            keys = json.loads(context) if isinstance(context, str) else context
            is_builtin = str(kind).startswith(("builtins.", "collections."))
            has_other_keys = is_builtin and not _are_plain_keys(keys)
            makes_values = kind == "collections.defaultdict"
            if makes_values or has_other_keys:
                shortened = _shorten(context)
                yield Reason(f"it takes or returns a {kind} of {shortened}")
            stack += spec["children_spec"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        yield Reason(f"an unsupported structure: {_shorten(text)}")


def _are_plain_keys(context: Any) -> bool:
    """Return whether the context of a pytree spec is None, a number, or the keys of a dict."""
    keys = context if isinstance(context, list) else [context]
    return all(key is None or isinstance(key, str | int | float) for key in keys)


def _check_value_names(key: str, table: dict[str, Any]) -> Iterator[Reason]:
    """Check the names in a table of values: they become variables of generated code."""
    if key in _VALUE_TABLES:
        for name in table:
            if not _IDENTIFIER.fullmatch(name):
                yield Reason(f"it names a value {_shorten(name)}")
    if key == "custom_obj_values" and table:
        yield Reason("it holds objects of an extension")


def _check_text(key: str, text: str) -> Iterator[Reason]:
    """Check a text by the key that it has: some of them become code."""
    if key == "expr_str" and not is_plain_expression(text):
        yield Reason(f"it evaluates the expression {_shorten(text)}")
    elif key in ("target", "as_operator"):
        yield from _check_target(text)
    elif key in _IDENTIFIER_KEYS and text and not _IDENTIFIER.fullmatch(text):
        yield Reason(f"it names a value {_shorten(text)}")
    elif key.endswith(("_name", "fqn", "forward_arg_names")) and not _PATH.fullmatch(text):
        yield Reason(f"it names {_shorten(text)}")


def _check_target(text: str) -> Iterator[Reason]:
    """Yield a reason if a call goes to an op that is not on the allowlist."""
    match = _ATEN.fullmatch(text)
    if match and match[1] != "higher_order":
        op = f"{match[1]}::{match[2]}"
        if op not in allowed():
            text = f"it calls the op {op}"
            if is_extension(op):
                text += " of an extension library"
            yield Reason(text, op)
    elif not any(pattern.fullmatch(text) for pattern in _OTHER_TARGETS):
        yield Reason(f"it calls {_shorten(text)}")


def _shorten(value: object) -> str:
    """Return the start of a value's text, for a message."""
    return str(value)[:MAX_SHOWN_LENGTH]
