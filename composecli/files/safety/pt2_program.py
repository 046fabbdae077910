"""What a torch.export archive would run when it is loaded or called, judged from its JSON.

PyTorch evaluates its size expressions and its guards, makes Python source of its names, and looks its targets up in
torch; pickles stand beside the weights where a config says so. Each of these is held against what an export writes.

Source of the format: `torch/_export/serde/schema.py`, schema major version 8, and `torch/export/pt2_archive`.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from composecli.files.archive import Archive, NotAnArchive
from composecli.files.checkpoint import is_inert
from composecli.files.pickle import NotAPickle, parse
from composecli.files.safety.allowlist import allowed
from composecli.files.safety.refusals import Reason
from composecli.files.storage_bounds import DTYPE_SIZES

_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|\.(format_version|storage_alignment)|"
    r"version|models/[\w.-]+\.json|data/(weights|constants)/[\w.-]+|data/sample_inputs/[\w.-]+\.pt|extra/.+"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Of parameters and modules, in state dicts and in stacks of modules.
_PATH = re.compile(r"[\w.\-\[\]'\"@ ()]*")
# Keys whose texts become Python source, or the names of arguments in it.
_NAMES = ("name", "as_name", "graph_name", "class_fqn")
_OPERATOR = re.compile(
    r"_operator\.(add|sub|mul|neg|pow|floordiv|mod|truediv|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem|pos|abs|lshift|rshift)"
)
_MATH = re.compile(
    r"math\.(ceil|floor|trunc|sqrt|log2|log|exp|sin|cos|tan|asin|acos|atan|sinh|cosh|tanh|round)"
)
_SYMBOLIC = re.compile(r"torch\.(sym_\w+|_sym_sqrt)")
_HIGHER = re.compile(
    r"torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|wrap_with_set_grad_enabled|"
    r"wrap_with_autocast|checkpoint|wrap_activation_checkpoint|tag_activation_checkpoint|flex_attention)"
)
_ATEN = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\.\w+)?")
_FUNCTIONS = frozenset(
    (
        "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs", "Mod", "PythonMod",
        "FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv", "FloatTrueDiv", "PowByNatural", "FloatPow",
        "FloorToInt", "CeilToInt", "TruncToInt", "TruncToFloat", "RoundToInt", "RoundDecimal", "ToFloat",
        "Where", "ModularIndexing", "Eq", "Ne", "Equality", "Unequality", "Lt", "Le", "Gt", "Ge",
        "StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "And", "Or", "Not", "BooleanTrue",
        "BooleanFalse", "OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_log2", "OpaqueUnaryFn_exp",
        "IsNonOverlappingAndDenseIndicator", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or", "Identity",
        "Piecewise", "ceiling", "floor",
    )
)  # fmt: skip
_WORDS = frozenset(
    (
        "true",
        "false",
        "True",
        "False",
        "oo",
        "int_oo",
        "zoo",
        "nan",
        "integer",
        "positive",
        "nonnegative",
        "real",
    )
)
_EXPRESSION = (
    ast.Expression, ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Load, ast.Compare, ast.cmpop,
    ast.BoolOp, ast.boolop, ast.Tuple, ast.keyword,
)  # fmt: skip
LONGEST_EXPRESSION = 4000
LARGEST_POWER = 64


def unsafe(archive: Archive) -> Iterator[Reason]:
    """What speaks against loading it, in words that name the member and what is in it."""
    for name in sorted(archive.names):
        if not _MEMBERS.fullmatch(name):
            yield Reason(f"a member that an export of Python does not write: {name}")
        elif name.startswith("data/") and name.endswith(".json"):
            yield from _config(name, archive.json(name))
        elif name.startswith("data/") and name.endswith(".pt"):
            yield from _samples(archive, name)
        elif name.startswith("models/"):
            yield from _program(archive.json(name))


def record_problems(archive: Archive) -> Iterator[str]:
    """Weights whose record is shorter than the tensor that lies in it."""
    for folder in ("weights", "constants"):
        for name in archive.names:
            if re.fullmatch(rf"data/{folder}/[\w.-]+_config\.json", name):
                for weight, payload in _mapping(archive.json(name), "config").items():
                    yield from _misfit(archive, folder, weight, payload)


def _misfit(archive: Archive, folder: str, weight: str, payload: Any) -> Iterator[str]:
    meta = payload.get("tensor_meta") if isinstance(payload, dict) else None
    if not isinstance(meta, dict):
        return
    member = f"data/{folder}/{payload.get('path_name')}"
    try:
        sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
        offset, item = meta["storage_offset"]["as_int"], ITEM_SIZES[meta["dtype"]]
        whole = all(type(number) is int and number >= 0 for number in (offset, *sizes, *strides))
        last = offset + sum(
            (size - 1) * stride for size, stride in zip(sizes, strides, strict=True)
        )
    except (KeyError, TypeError, ValueError):
        yield f"{weight} has no sizes that make sense"
        return
    if member not in archive.names:
        yield f"the record of {weight} is missing"
    elif not whole or (0 not in sizes and (last + 1) * item > archive.size(member)):
        yield f"{weight} reaches to byte {(last + 1) * item:,} of {archive.size(member):,}"


ITEM_SIZES = {
    code: DTYPE_SIZES[name]
    for code, name in {
        1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64",
        9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
        29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
    }.items()
}  # fmt: skip


def _mapping(data: Any, key: str) -> dict[str, Any]:
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _config(name: str, data: Any) -> Iterator[Reason]:
    for weight, payload in _mapping(data, "config").items():
        if not isinstance(payload, dict) or payload.get("use_pickle") is not False:
            yield Reason(f"{name} has {weight} in a pickle")
        elif not re.fullmatch(r"[\w.-]+", str(payload.get("path_name"))):
            yield Reason(f"{name} has {weight} at {payload.get('path_name')}")
        elif str(payload.get("path_name")).startswith(("opaque_obj_", "custom_obj_")):
            yield Reason(f"{name} has {weight} as an object")


def _samples(archive: Archive, name: str) -> Iterator[Reason]:
    """The example inputs, a checkpoint inside of the archive: PyTorch unpickles it with anything, where it must."""
    if not name.startswith("data/sample_inputs/"):
        yield Reason(f"{name} is a pickle")
        return
    try:
        inner = inner_pickle(archive.read(name))
        yield from (
            Reason(f"{name} would import {item}")
            for item in parse(inner).imports
            if not is_inert(item)
        )
    except (NotAPickle, NotAnArchive) as error:
        yield Reason(f"{name}: {error}")


def inner_pickle(data: bytes) -> bytes:
    """The pickle of a checkpoint that is a member itself."""
    if not data:
        return b"\x80\x02N."
    with Archive.of_bytes(data) as archive:
        return archive.read("data.pkl")


def _program(data: Any) -> Iterator[Reason]:
    if not isinstance(data, dict):
        yield Reason("its program is no object")
        return
    guards = data.get("guards_code", [])
    for guard in guards if isinstance(guards, list) else [guards]:
        if not isinstance(guard, str) or not plain_guard(guard):
            yield Reason(f"it evaluates the guard {str(guard)[:60]}")
    todo: list[tuple[str, Any]] = [("", data)]
    while todo:
        key, value = todo.pop()
        if key in ("in_spec", "out_spec") and value is not None:
            yield from _structure(value)
        if isinstance(value, dict):
            yield from _keys(key, value)
            todo += value.items()
        elif isinstance(value, list):
            todo += ((key, item) for item in value)
        elif isinstance(value, str):
            yield from _text(key, value)


def _structure(text: Any) -> Iterator[Reason]:
    """PyTorch imports what the structure of an input names as an enum, or as what makes the values of a defaultdict."""
    try:
        todo = [json.loads(text)[1]]
        while todo:
            spec = todo.pop()
            kind, context = spec["type"], spec["context"]
            plain = json.loads(context) if isinstance(context, str) else context
            own = str(kind).startswith(("builtins.", "collections."))
            if kind == "collections.defaultdict" or (own and not _plain_context(plain)):
                yield Reason(f"it takes or returns a {kind} of {str(context)[:60]}")
            todo += spec["children_spec"]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        yield Reason(f"a structure that is not read: {str(text)[:60]}")


def _plain_context(context: Any) -> bool:
    """None, a number, or the keys of a dict."""
    keys = context if isinstance(context, list) else [context]
    return all(key is None or isinstance(key, str | int | float) for key in keys)


def _keys(key: str, value: dict[str, Any]) -> Iterator[Reason]:
    if key in (
        "tensor_values",
        "sym_int_values",
        "sym_bool_values",
        "sym_float_values",
        "custom_obj_values",
    ):
        yield from (
            Reason(f"it names a value {name[:60]}") for name in value if not _NAME.fullmatch(name)
        )
    if key == "custom_obj_values" and value:
        yield Reason("it holds objects of an extension")


def _text(key: str, text: str) -> Iterator[Reason]:
    if key == "expr_str" and not plain_expression(text):
        yield Reason(f"it evaluates the expression {text[:60]}")
    elif key in ("target", "as_operator"):
        yield from _target(text)
    elif key in _NAMES and text and not _NAME.fullmatch(text):
        yield Reason(f"it names a value {text[:60]}")
    elif key.endswith(("_name", "fqn", "forward_arg_names")) and not _PATH.fullmatch(text):
        yield Reason(f"it names {text[:60]}")


def _target(text: str) -> Iterator[Reason]:
    found = _ATEN.fullmatch(text)
    if found and found[1] != "higher_order":
        op = f"{found[1]}::{found[2]}"
        if op not in allowed():
            yield Reason(f"it calls the op {op}", op)
    elif not any(known.fullmatch(text) for known in (_OPERATOR, _MATH, _SYMBOLIC, _HIGHER)):
        yield Reason(f"it calls {text[:60]}")


def plain_guard(text: str) -> bool:
    """Whether it compares sizes of the inputs, as an export writes it: `L['x'].size()[1] == 3`."""
    if len(text) > LONGEST_EXPRESSION or "#" in text or "\n" in text:
        return False
    tree = _parsed(text)
    return tree is not None and all(map(_plain_in_a_guard, ast.walk(tree)))


def _plain_in_a_guard(node: ast.AST) -> bool:
    match node:
        case ast.Call(
            ast.Attribute(_, "size" | "stride" | "storage_offset" | "dim" | "numel"), [], []
        ):
            return True
        case ast.Call(ast.Name("max" | "min" | "abs" | "int" | "float"), _, []):
            return True
        case ast.Call(ast.Attribute(ast.Name("math"), "ceil" | "floor" | "trunc" | "sqrt"), _, []):
            return True
        case ast.Attribute(_, name):
            return name in (
                "size",
                "stride",
                "storage_offset",
                "dim",
                "numel",
                "ceil",
                "floor",
                "trunc",
                "sqrt",
            )
        case ast.Name(name):
            return name in ("L", "max", "min", "abs", "int", "float", "math")
        case ast.Call():
            return False
        case _:
            return isinstance(node, ast.Subscript) or _plain_node(node)


def _parsed(text: str) -> ast.AST | None:
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def plain_expression(text: str) -> bool:
    """Whether it is arithmetic on symbols and integers, as sympy prints it: nothing that evaluating could run."""
    tree = _parsed(text) if len(text) <= LONGEST_EXPRESSION else None
    return tree is not None and all(map(_plain_node, ast.walk(tree)))


def _plain_node(node: ast.AST) -> bool:
    match node:
        case ast.Call(ast.Name(name)):
            return name in _FUNCTIONS
        case ast.Name(name):
            return (
                name in _FUNCTIONS or name in _WORDS or bool(re.fullmatch(r"[a-z]{1,4}\d*", name))
            )
        case ast.Constant(str(text)):
            return bool(re.fullmatch(r"[A-Za-z_]\w{0,60}|-?[\d.]+", text))
        case ast.Constant(value):
            return isinstance(value, bool | float) or (
                isinstance(value, int) and abs(value) < 2**64
            )
        case ast.BinOp(_, ast.Pow(), ast.Constant(int(power))):
            return 0 <= power <= LARGEST_POWER
        case ast.BinOp(_, ast.Pow(), _):
            return False
        case _:
            return isinstance(node, _EXPRESSION)
