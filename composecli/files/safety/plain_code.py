"""Texts of a torch.export archive that PyTorch evaluates as Python: which of them cannot run code.

Expressions and guards are parsed and checked against the nodes and names that an export writes.
"""

from __future__ import annotations

import ast
import re

MAX_EXPRESSION_LENGTH = 4000
MAX_EXPONENT = 64
MAX_INTEGER = 2**64

_SYMBOL = re.compile(r"[a-z]{1,4}\d*")
_TEXT = re.compile(r"[A-Za-z_]\w{0,60}|-?[\d.]+")
# Functions of sympy, and of torch.utils._sympy, in the notation of `srepr`.
_FUNCTION_NAMES = """
    Symbol Integer Float Rational Add Mul Pow Max Min Abs Mod PythonMod
    FloorDiv CeilDiv CleanDiv IntTrueDiv FloatTrueDiv PowByNatural FloatPow
    FloorToInt CeilToInt TruncToInt TruncToFloat RoundToInt RoundDecimal ToFloat
    Where ModularIndexing Eq Ne Equality Unequality Lt Le Gt Ge
    StrictLessThan LessThan StrictGreaterThan GreaterThan And Or Not BooleanTrue
    BooleanFalse OpaqueUnaryFn_sqrt OpaqueUnaryFn_log2 OpaqueUnaryFn_exp
    IsNonOverlappingAndDenseIndicator BitwiseFn_bitwise_and BitwiseFn_bitwise_or Identity
    Piecewise ceiling floor
"""
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_CONSTANTS = frozenset(("true", "false", "True", "False", "oo", "int_oo", "zoo", "nan"))
_ASSUMPTIONS = frozenset(("integer", "positive", "nonnegative", "real"))
_EXPRESSION_NODES = (
    ast.Expression,
    ast.Constant,
    ast.BinOp,
    ast.UnaryOp,
    ast.operator,
    ast.unaryop,
    ast.Load,
    ast.Compare,
    ast.cmpop,
    ast.BoolOp,
    ast.boolop,
    ast.Tuple,
    ast.keyword,
)
_TENSOR_METHODS = frozenset(("size", "stride", "storage_offset", "dim", "numel"))
_MATH_FUNCTIONS = frozenset(("ceil", "floor", "trunc", "sqrt"))
_BUILTINS = frozenset(("max", "min", "abs", "int", "float"))


def is_plain_guard(text: str) -> bool:
    """Return whether a guard only compares sizes of inputs: `L['x'].size()[1] == 3`."""
    if len(text) > MAX_EXPRESSION_LENGTH or "#" in text or "\n" in text:
        return False
    tree = _parse(text)
    if tree is None:
        return False
    return all(map(_is_guard_node, ast.walk(tree)))


def is_plain_expression(text: str) -> bool:
    """Return whether an expression is arithmetic on symbols and numbers, as sympy prints it."""
    if len(text) > MAX_EXPRESSION_LENGTH:
        return False
    tree = _parse(text)
    if tree is None:
        return False
    return all(map(_is_expression_node, ast.walk(tree)))


def _parse(text: str) -> ast.AST | None:
    """Parse an expression, None if it is not one or too nested to be plain."""
    try:
        return ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _is_guard_node(node: ast.AST) -> bool:
    """Return whether a guard may have this node; its children are checked on their own."""
    match node:
        case ast.Call(ast.Attribute(_, name), [], []) if name in _TENSOR_METHODS:
            return True
        case ast.Call(ast.Name(name), _, []) if name in _BUILTINS:
            return True
        case ast.Call(ast.Attribute(ast.Name("math"), name), _, []) if name in _MATH_FUNCTIONS:
            return True
        case ast.Call():
            return False
        case ast.Attribute(_, name):
            return name in _TENSOR_METHODS or name in _MATH_FUNCTIONS
        case ast.Name(name):
            return name in _BUILTINS or name in ("L", "math")
        case _:
            if isinstance(node, ast.Subscript):
                return True
            return _is_expression_node(node)


def _is_expression_node(node: ast.AST) -> bool:
    """Return whether arithmetic may have this node; its children are checked on their own."""
    match node:
        case ast.Call(ast.Name(name)):
            return name in _FUNCTIONS
        case ast.Name(name):
            is_word = name in _FUNCTIONS or name in _CONSTANTS or name in _ASSUMPTIONS
            return is_word or _SYMBOL.fullmatch(name) is not None
        case ast.Constant(str(text)):
            return _TEXT.fullmatch(text) is not None
        case ast.Constant(bool() | float()):
            return True
        case ast.Constant(int(value)):
            return abs(value) < MAX_INTEGER
        case ast.Constant():
            return False
        case ast.BinOp(_, ast.Pow(), exponent):
            return _is_small_exponent(exponent)
        case _:
            return isinstance(node, _EXPRESSION_NODES)


def _is_small_exponent(node: ast.expr) -> bool:
    """Return whether this is a constant power that is cheap to evaluate."""
    match node:
        case ast.Constant(int(value)):
            return 0 <= value <= MAX_EXPONENT
    return False
