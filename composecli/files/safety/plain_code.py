"""Texts of a torch.export archive that PyTorch evaluates as Python: which of them cannot run code.

Both kinds have a closed grammar, that of an export: expressions as sympy's `srepr` prints
them, and guards as `torch.utils._sympy.printers.PythonPrinter` does. Every form has a limit on the
bits of its value, so that nothing is evaluated that takes long or much memory.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

from composecli.files.safety.pt2_structure import is_unquoted

MAX_EXPRESSION_LENGTH = 16_000
MAX_EXPONENT = 64
MAX_INTEGER_BITS = 64
MAX_BITS = 1024

# Returns how many bits a value of the expression has at most.
_Bits: TypeAlias = Callable[[ast.expr], int]

# The names that torch gives to symbols: `s0`, `u3`, `zuf1`.
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,6}")
_SYMBOL_TEXT = re.compile(r"[A-Za-z_]\w{0,60}")
_FLOAT_TEXT = re.compile(r"-?\d{1,40}\.?\d{0,40}([eE][+-]?\d{1,3})?|-?inf|nan")
_ARGUMENT_NAME = re.compile(r"[^\W\d]\w{0,200}")
# Functions of sympy, and of torch.utils._sympy, whose value has no more bits than an argument.
_FUNCTION_NAMES = """
    Max Min Abs Mod PythonMod FloorDiv CeilDiv CleanDiv IntTrueDiv FloatTrueDiv
    FloorToInt CeilToInt TruncToInt TruncToFloat RoundToInt ToFloat RShift
    Where ModularIndexing Eq Ne Equality Unequality Lt Le Gt Ge
    StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not
    OpaqueUnaryFn_sqrt OpaqueUnaryFn_log2 OpaqueUnaryFn_exp OpaqueUnaryFn_cos OpaqueUnaryFn_cosh
    OpaqueUnaryFn_acos OpaqueUnaryFn_sin OpaqueUnaryFn_sinh OpaqueUnaryFn_asin OpaqueUnaryFn_tan
    OpaqueUnaryFn_tanh OpaqueUnaryFn_atan IsNonOverlappingAndDenseIndicator
    BitwiseFn_bitwise_and BitwiseFn_bitwise_or BitwiseFn_bitwise_xor Identity Piecewise
    ExprCondPair ceiling floor
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_POWERS = frozenset(("Pow", "FloatPow"))
_CONSTANTS = frozenset(
    ("true", "false", "oo", "int_oo", "zoo", "nan", "pi", "E", "BooleanTrue", "BooleanFalse")
)
_ASSUMPTIONS = frozenset(
    ("integer", "positive", "nonnegative", "negative", "real", "finite", "zero", "nonzero")
)
_METHODS = frozenset(("size", "stride", "storage_offset", "dim", "numel"))
_MATH_NAMES = """
    ceil floor trunc sqrt log2 cos cosh acos sin sinh asin tan tanh atan isnan
"""
_MATH_FUNCTIONS = frozenset(_MATH_NAMES.split())
_TORCH_NAMES = """
    sym_float sym_int sym_max sym_min sym_not sym_ite sym_sqrt _sym_sqrt _sym_log2
"""
_TORCH_FUNCTIONS = frozenset(_TORCH_NAMES.split())
_BUILTINS = frozenset(
    ("max", "min", "abs", "int", "float", "round", "IsNonOverlappingAndDenseIndicator")
)
_WIDENING = (ast.Add, ast.Sub)
_NARROWING = (ast.Div, ast.FloorDiv, ast.Mod, ast.RShift, ast.BitAnd, ast.BitOr)
_ORDERINGS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE)
# A float, or a size: both have 64 bits.
_NUMBER = 64


class _NotPlain(Exception):
    """The text has a part that an export does not write, or a value of too many bits."""


def is_plain_guard(text: str) -> bool:
    """Return whether a guard only compares sizes of inputs: `L['x'].size()[1] == 3`."""
    if not text.isprintable() or not _is_plain(text, _guard_bits):
        return False
    return "#" not in text or not _has_comment(text)


def _has_comment(text: str) -> bool:
    """Return whether a `#` may stand outside the keys of a guard, which have no escapes."""
    if "\\" in text:
        return True
    in_keys = 0
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            in_keys += node.value.count("#")
    return text.count("#") != in_keys


def is_plain_expression(text: str) -> bool:
    """Return whether an expression is arithmetic on symbols and numbers, as sympy prints it."""
    return _is_plain(text, _expression_bits)


def _is_plain(text: str, bits: _Bits) -> bool:
    """Return whether a text is a single expression of this grammar."""
    if len(text) > MAX_EXPRESSION_LENGTH:
        return False
    try:
        tree = ast.parse(text, mode="eval")
        bits(tree.body)
    except (_NotPlain, SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _expression_bits(node: ast.expr) -> int:
    """Return the bits of an expression on symbols."""
    match node:
        case ast.Name(name) if name in _CONSTANTS or _SYMBOL.fullmatch(name):
            return _NUMBER
        case ast.Call(ast.Name("Symbol"), [ast.Constant(str(name))], keywords):
            _require(_SYMBOL_TEXT.fullmatch(name) is not None)
            _require(all(map(_is_assumption, keywords)))
            return _NUMBER
        case ast.Call(ast.Name("Float"), [ast.Constant(str(text))], keywords):
            _require(_FLOAT_TEXT.fullmatch(text) is not None)
            _require(all(map(_is_precision, keywords)))
            return _NUMBER
        case ast.Call(ast.Name("Integer" | "Float" | "Rational"), numbers, []):
            return max(map(_constant_bits, numbers), default=0)
        case ast.Call(ast.Name("PowByNatural"), [base, exponent], []):
            return _limited_power_bits(base, exponent, _expression_bits)
        case ast.Call(ast.Name(name), [base, exponent], []) if name in _POWERS:
            return _power_bits(base, exponent, _expression_bits)
        case ast.Call(ast.Name(name), arguments, []):
            return _limited(_function_bits(name, arguments))
        case ast.BinOp(_, ast.BitXor(), _):
            # sympy reads it as a power.
            raise _NotPlain
    return _operator_bits(node, _expression_bits)


def _function_bits(name: str, arguments: Sequence[ast.expr]) -> int:
    """Return the bits of a function of sympy or torch with these arguments."""
    match name, arguments:
        case "LShift", [value, count]:
            return _expression_bits(value) + _small(count)
        case "Piecewise", _:
            return max(map(_case_bits, arguments), default=0)
        case "RoundDecimal", [value, digits]:
            _small(digits)
            return _expression_bits(value)
    widths = [_expression_bits(argument) for argument in arguments]
    match name:
        case "Add":
            return max(widths, default=0) + len(widths)
        case "Mul":
            return sum(widths)
    _require(name in _FUNCTIONS)
    return max(widths, default=0)


def _case_bits(node: ast.expr) -> int:
    """Return the bits of a case of a `Piecewise`: a pair of a value and its condition."""
    match node:
        case ast.Tuple([value, condition]):
            return max(_expression_bits(value), _expression_bits(condition))
    return _expression_bits(node)


def _guard_bits(node: ast.expr) -> int:
    """Return the bits of a condition on inputs, or of a part of it."""
    match node:
        case ast.Attribute(ast.Name("math"), "inf" | "nan"):
            return _NUMBER
        case ast.Subscript():
            return _size_bits(node)
        case ast.Call(ast.Attribute(path, method), [], []) if method in _METHODS:
            return _path_bits(path)
        case ast.Call(ast.Name("round"), [value, digits], []):
            _small(digits)
            return _guard_bits(value)
        case ast.Call(ast.Name() | ast.Attribute() as function, arguments, []):
            _require(_is_guard_function(function))
            return max(map(_guard_bits, arguments), default=0)
        case ast.IfExp(condition, one, other):
            return max(map(_guard_bits, (condition, one, other)))
        case ast.BinOp():
            return _guard_operator_bits(node)
    return _operator_bits(node, _guard_bits)


def _guard_operator_bits(node: ast.BinOp) -> int:
    """Return the bits of a binary operator in a guard, two of which have more operands there."""
    match node:
        case ast.BinOp(left, ast.BitXor(), right):
            return max(map(_guard_bits, (left, right)))
        case ast.BinOp(base, ast.Pow(), exponent):
            return _limited_power_bits(base, exponent, _guard_bits)
    return _operator_bits(node, _guard_bits)


def _size_bits(node: ast.Subscript) -> int:
    """Check the size of an axis, such as `L['x'].size()[1]`, or a path to an input."""
    match node:
        case ast.Subscript(ast.Call(ast.Attribute(path, "size" | "stride"), [], []), axis):
            _constant_bits(axis)
            return _path_bits(path)
    return _path_bits(node)


def _is_guard_function(function: ast.expr) -> bool:
    """Return whether guards may call this function."""
    match function:
        case ast.Name(name):
            return name in _BUILTINS
        case ast.Attribute(ast.Name("math"), name):
            return name in _MATH_FUNCTIONS
        case ast.Attribute(ast.Name("torch"), name):
            return name in _TORCH_FUNCTIONS
    return False


def _path_bits(node: ast.expr) -> int:
    """Check a path to an input, such as `L['x'][0]['mask']`."""
    match node:
        case ast.Subscript(ast.Name("L"), ast.Constant(str(name))):
            _require(_ARGUMENT_NAME.fullmatch(name) is not None)
            return _NUMBER
        case ast.Subscript(path, ast.Constant(str(key))):
            _require(is_unquoted(key))
            return _path_bits(path)
        case ast.Subscript(path, index):
            _constant_bits(index)
            return _path_bits(path)
    raise _NotPlain


def _operator_bits(node: ast.expr, bits: _Bits) -> int:
    """Return the bits of a number, or of an operator whose operands have the same grammar."""
    match node:
        case ast.Constant():
            return _constant_bits(node)
        case ast.UnaryOp(_, operand):
            return _limited(bits(operand) + 1)
        case ast.BoolOp(_, operands):
            return max(map(bits, operands))
        case ast.Compare(first, operators, others):
            _require(all(isinstance(operator, _ORDERINGS) for operator in operators))
            return max(map(bits, (first, *others)))
        case ast.BinOp(base, ast.Pow(), exponent):
            return _power_bits(base, exponent, bits)
        case ast.BinOp(value, ast.LShift(), count):
            return _limited(bits(value) + _small(count))
        case ast.BinOp(left, operator, right):
            return _limited(_binary_bits(operator, bits(left), bits(right)))
    raise _NotPlain


def _binary_bits(operator: ast.operator, left: int, right: int) -> int:
    """Return the bits of the result for operands of these bits."""
    if isinstance(operator, ast.Mult):
        return left + right
    if isinstance(operator, _WIDENING):
        return max(left, right) + 1
    _require(isinstance(operator, _NARROWING))
    return max(left, right)


def _power_bits(base: ast.expr, exponent: ast.expr, bits: _Bits) -> int:
    """Return the bits of a power; its exponent is a small constant."""
    return _limited(bits(base) * max(1, _small(exponent)))


def _limited_power_bits(base: ast.expr, exponent: ast.expr, bits: _Bits) -> int:
    """Return the bits of a power that has a limit where it is evaluated.

    So its exponent may also be a size if the base is a number, as in `2**size`. The limit is that
    of an integer in `PowByNatural`, and that of `runtime.pt2.arithmetic` in guards.
    """
    if _is_written_out(base) and _is_size(exponent):
        _require(bits(base) <= _NUMBER and bits(exponent) <= 2 * _NUMBER)
        return _NUMBER
    return _power_bits(base, exponent, bits)


def _is_written_out(node: ast.expr) -> bool:
    """Return whether a node is a number."""
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            return _is_written_out(operand)
        case ast.Constant() | ast.Call(ast.Name("Integer"), [_], []):
            return True
    return False


def _is_size(node: ast.expr) -> bool:
    """Return whether a node is a symbol or a size, or the sum of one and numbers."""
    match node:
        case ast.Call(ast.Name("Symbol")) | ast.Subscript():
            return True
        case ast.Call(ast.Attribute(_, method), [], []):
            return method in _METHODS
        case ast.Call(ast.Name("Add"), [number, other], []):
            return _is_written_out(number) and _is_size(other)
        case ast.BinOp(other, ast.Add() | ast.Sub(), number):
            return _is_written_out(number) and _is_size(other)
    return False


def _small(node: ast.expr) -> int:
    """Return the absolute value of a constant that is no more than the largest exponent."""
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            return _small(operand)
        case ast.Call(ast.Name("Integer"), [number], []):
            return _small(number)
        case ast.Call(ast.Name("Float"), [ast.Constant(str(text))], keywords):
            _require(_FLOAT_TEXT.fullmatch(text) is not None)
            _require(all(map(_is_precision, keywords)))
            return _small(ast.Constant(float(text)))
        case ast.Call(ast.Name("Rational"), [numerator, denominator], []):
            _small(denominator)
            return _small(numerator)
        case ast.Constant(int() | float() as value) if abs(value) <= MAX_EXPONENT:
            return int(abs(value)) + 1
    raise _NotPlain


def _constant_bits(node: ast.expr) -> int:
    """Return the bits of a number that is written out, with a sign or without."""
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            return _constant_bits(operand)
        case ast.Constant(bool() | float()):
            return _NUMBER
        case ast.Constant(int(value)):
            _require(value.bit_length() <= MAX_INTEGER_BITS)
            return value.bit_length()
    raise _NotPlain


def _is_assumption(keyword: ast.keyword) -> bool:
    """Return whether a keyword of a symbol is one that sympy writes, such as `integer=True`."""
    match keyword.value:
        case ast.Constant(bool()):
            return keyword.arg in _ASSUMPTIONS
    return False


def _is_precision(keyword: ast.keyword) -> bool:
    """Return whether a keyword of a float is its precision, in bits or digits."""
    match keyword.value:
        case ast.Constant(int(value)):
            return keyword.arg in ("precision", "dps", "prec") and 0 < value <= MAX_BITS
    return False


def _limited(bits: int) -> int:
    """Return the number of bits if it is not too large to evaluate."""
    _require(bits <= MAX_BITS)
    return bits


def _require(holds: object) -> None:
    """Stop the check if a condition does not hold."""
    if not holds:
        raise _NotPlain
