"""Finding the code that a program of a torch.export archive would run, from its JSON.

PyTorch evaluates its size expressions and guards, generates Python source from its names, and looks
its targets up in torch. A text in place of a number would be evaluated, too. So each value is
compared with the form that an export writes under its key.

Source of the format: `torch/_export/serde/schema.py`, schema major version 8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from composecli.files.safety.allowlist import allowed
from composecli.files.safety.extension_ops import is_extension
from composecli.files.safety.plain_code import is_plain_expression, is_plain_guard
from composecli.files.safety.pt2_structure import (
    UnknownStructure,
    check_structure,
    is_argument_name,
    is_unquoted,
)
from composecli.files.safety.refusals import Reason, start_of

MAX_INTEGER = 2**64

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Names of parameters and modules, in state dicts and in stack traces.
_PATH = re.compile(r"[\w.\-\[\]'\"@ ()]*")
# Keys whose texts become Python source, or names of arguments in it.
_IDENTIFIER_KEYS = frozenset(("name", "as_name", "graph_name", "class_fqn"))
_TARGET_KEYS = frozenset(("target", "as_operator"))
_STRUCTURE_KEYS = frozenset(("in_spec", "out_spec"))
_TEXT_KEYS = _IDENTIFIER_KEYS | _TARGET_KEYS | {"expr_str", "as_string"}
_NUMBER_KEYS = frozenset(
    (
        "as_int", "as_ints", "as_int_lists", "as_bool", "as_bools", "as_none", "as_scalar_type",
        "as_memory_format", "as_layout", "dtype", "layout", "index", "major", "minor", "min_val",
        "max_val", "requires_grad", "persistent", "kind", "is_single_tensor_return",
        "is_hop_single_tensor_return",
    )
)  # fmt: skip
_FLOAT_KEYS = frozenset(("as_float", "as_floats", "as_float_lists", "real", "imag"))
# JSON has no such numbers, so torch.export writes them as texts.
_FLOAT_TEXTS = frozenset(("Infinity", "-Infinity", "NaN"))
# Keys of objects whose own keys are the names of values.
_VALUE_TABLES = frozenset(
    (
        "tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values",
        "custom_obj_values",
    )
)  # fmt: skip
# Keys of objects whose own keys are other names, of symbols, arguments and namespaces.
_OTHER_TABLES = frozenset(
    (
        "range_constraints", "metadata", "as_string_to_argument", "opset_version",
        "treespec_namedtuple_fields",
    )
)  # fmt: skip
_ATEN = re.compile(r"torch\.ops\.(\w+)\.([A-Za-z_]\w*)(\.([A-Za-z]\w*))?")
# Attributes of an op's packet that are not overloads.
_NOT_OVERLOADS = frozenset(("op", "overloads", "op_overloads"))
_OPERATORS = """
    add sub mul neg pow floordiv mod truediv eq ne lt le gt ge and_ or_ xor not_ getitem pos abs
    lshift rshift
"""
_MATH = "ceil floor trunc sqrt log2 log exp sin cos tan asin acos atan sinh cosh tanh"
_SYMBOLIC = """
    sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt sym_sum _sym_sqrt _sym_log2 _sym_cos
    _sym_cosh _sym_sin _sym_sinh _sym_tan _sym_tanh _sym_asin _sym_acos _sym_atan
"""
_HIGHER_ORDER = """
    cond while_loop map_impl scan associative_scan wrap_with_set_grad_enabled wrap_with_autocast
    checkpoint wrap_activation_checkpoint tag_activation_checkpoint flex_attention
"""


def _targets() -> Iterator[str]:
    """Yield the targets that are no ops: arithmetic, and the ops that call a graph."""
    namespaces = {
        "_operator": _OPERATORS,
        "math": _MATH,
        "torch": _SYMBOLIC,
        "torch.ops.higher_order": _HIGHER_ORDER,
    }
    for namespace, names in namespaces.items():
        for name in names.split():
            yield f"{namespace}.{name}"


OTHER_TARGETS = frozenset(_targets())


def unsafe_program(program: Any) -> Iterator[Reason]:
    """Check every key and value of a program, at any depth; yield the reasons not to load it."""
    if not isinstance(program, dict):
        yield Reason("its program is not a JSON object")
        return
    yield from _check_guards(program.get("guards_code", []))
    yield from _check_inputs(program.get("graph_module"))
    stack: list[tuple[str, Any]] = [("", program)]
    while stack:
        key, value = stack.pop()
        yield from _check_value(key, value)
        if isinstance(value, dict):
            if key in _VALUE_TABLES or key in _OTHER_TABLES:
                yield from _check_table(key, value)
                stack += (("", item) for item in value.values())
            else:
                stack += value.items()
        elif isinstance(value, list):
            stack += ((key, item) for item in value)


def _check_guards(guards: Any) -> Iterator[Reason]:
    """Check the guards, which PyTorch evaluates as Python code."""
    if guards is None:
        return
    if not isinstance(guards, list):
        yield Reason(f"it has {start_of(guards)} in place of a list of guards")
        return
    for guard in guards:
        if not isinstance(guard, str) or not is_plain_guard(guard):
            yield Reason(f"it evaluates the guard {start_of(guard)}")


def _check_inputs(module: Any) -> Iterator[Reason]:
    """Check the constants among the inputs, which PyTorch quotes in the source of guards."""
    match module:
        case {"graph": {"inputs": inputs}, "signature": {"input_specs": specs}}:
            stack = [("", inputs), ("", specs)]
        case _:
            return
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack += value.items()
        elif isinstance(value, list):
            stack += ((key, item) for item in value)
        elif isinstance(value, str) and key == "as_string" and not is_unquoted(value):
            yield Reason(f"it has the constant input {start_of(value)}")


def _check_table(key: str, table: dict[str, Any]) -> Iterator[Reason]:
    """Check the names in a table; those of values become variables of generated code."""
    if key in _VALUE_TABLES:
        for name in table:
            if not _IDENTIFIER.fullmatch(name):
                yield Reason(f"it names a value {start_of(name)}")
    elif key == "range_constraints":
        for name in table:
            if not is_plain_expression(name):
                yield Reason(f"it has a range of {start_of(name)}")
    if key == "custom_obj_values" and table:
        yield Reason("it holds objects of an extension")


def _check_value(key: str, value: Any) -> Iterator[Reason]:
    """Check a value by the key that it has: of the kind of the key, and harmless if evaluated."""
    if key in _STRUCTURE_KEYS:
        if value is not None:
            yield from _check_structure(key, value)
    elif key in _NUMBER_KEYS:
        if not _is_number(value):
            yield Reason(f"it has {start_of(value)} in place of a number")
    elif key in _FLOAT_KEYS:
        is_named = isinstance(value, str) and value in _FLOAT_TEXTS
        if not is_named and not _is_number(value):
            yield Reason(f"it has {start_of(value)} in place of a number")
    elif key in _TEXT_KEYS and value is not None and not isinstance(value, str):
        yield Reason(f"it has {start_of(value)} in place of a text")
    elif isinstance(value, str):
        yield from _check_text(key, value)


def _is_number(value: Any) -> bool:
    """Return whether a value is None, a number of a usual size, or a list, whose items follow."""
    if value is None or isinstance(value, bool | float | list):
        return True
    return isinstance(value, int) and abs(value) < MAX_INTEGER


def _check_structure(key: str, text: Any) -> Iterator[Reason]:
    """Check a pytree spec: PyTorch imports the enums and the factories that it names."""
    try:
        check_structure(text, is_input=key == "in_spec")
    except UnknownStructure as error:
        yield Reason(f"it takes or returns {start_of(error)}")


def _check_text(key: str, text: str) -> Iterator[Reason]:
    """Check a text by the key that it has: some of them become code."""
    if key == "expr_str" and not is_plain_expression(text):
        yield Reason(f"it evaluates the expression {start_of(text)}")
    elif key in _TARGET_KEYS:
        yield from _check_target(text)
    elif key in _IDENTIFIER_KEYS and text and not _IDENTIFIER.fullmatch(text):
        yield Reason(f"it names a value {start_of(text)}")
    elif key == "forward_arg_names" and not is_argument_name(text):
        yield Reason(f"it names an argument {start_of(text)}")
    elif key.endswith(("_name", "fqn")) and not _PATH.fullmatch(text):
        yield Reason(f"it names {start_of(text)}")


def _check_target(text: str) -> Iterator[Reason]:
    """Yield a reason if a call goes to an op that is not on the allowlist."""
    match = _ATEN.fullmatch(text)
    if text in OTHER_TARGETS:
        return
    if match is None or match[1] == "higher_order" or match[4] in _NOT_OVERLOADS:
        yield Reason(f"it calls {start_of(text)}")
        return
    op = f"{match[1]}::{match[2]}"
    if op not in allowed():
        text = f"it calls the op {op}"
        if is_extension(op):
            text += " of an extension library"
        yield Reason(text, op)
