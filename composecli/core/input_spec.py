"""Input specs: the values of `--input`, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from composecli.core.dims import (
    Shape,
    as_free,
    bounds,
    example_size,
    fixed_size,
    is_variable,
    parse_shape,
)
from composecli.core.dtypes import DTYPES, is_numeric
from composecli.core.limits import MAX_SIZE, read_integer, shorten
from composecli.core.relations import Where, parse_where

# Sizes of a free dim in the first call: on axis 0, which is usually the batch, and on other axes.
_EXAMPLE_BATCH = 2
_EXAMPLE_SIZE = 8
MAX_SUGGESTED_DTYPES = 11
# Most kernels of torch take no tensor of more axes.
MAX_AXES = 64
MAX_SHAPE_LENGTH = 10_000


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """A tensor input that the user declared. `dtype` is None if only example sizes were given.

    `model` is the number of the model in its chain, here and below. `where` are relations of its
    dims, or of dims of inputs before it.
    """

    name: str | None
    dtype: str | None
    dims: Shape
    model: int = 1
    where: Where = ()


@dataclass(frozen=True, slots=True)
class DeclaredLiteral:
    """An argument that is a plain value."""

    name: str | None
    value: bool | int | float | str | None
    model: int = 1


@dataclass(frozen=True, slots=True)
class DeclaredSample:
    """Inputs from a file of saved tensors."""

    path: str
    model: int = 1


Declared = DeclaredTensor | DeclaredLiteral | DeclaredSample

_NUMBERED = re.compile(r"\s*([1-9]\d{0,3}):(?!=)(.*)", re.DOTALL)
_NAMED = re.compile(r"\s*([A-Za-z_]\w*)\s*(:?=)(?!=)(.*)", re.DOTALL)
_TYPED = re.compile(r"\s*(\w+)\s*\[(.*)\]\s*", re.DOTALL)
# With a sign, and with underscores as Python allows them.
_INTEGER = re.compile(r"[+-]?\d+(_\d+)*")
_LITERALS = {"true": True, "false": False, "none": None}


def parse_input(text: str) -> Declared:
    """Parse the value of `--input`.

    It is one of `float32[N,3,224,224]`, `1,3,224,224`, `ids=int64[1,16]`, `rate:=16000` and
    `@sample.pt`. An input of a later model has its number in front: `2:ids=int64[N,T]`. Relations
    of its dims may follow: `float32[N,C,H,W] where C*H*W == 1024`.

    Raises:
        ValueError: if it is none of these; the message is written for users.
    """
    numbered = _NUMBERED.fullmatch(text)
    if numbered is not None:
        number, rest = numbered.groups()
        return replace(_parse_declared(rest), model=int(number))
    return _parse_declared(text)


def _parse_declared(text: str) -> Declared:
    """Parse an input without the number of its model."""
    if text.startswith("@"):
        if len(text) == 1:
            raise ValueError("there is no file name after @")
        return DeclaredSample(text[1:])
    if text.startswith(":="):
        return DeclaredLiteral(None, _parse_literal(text[2:]))
    named = _NAMED.fullmatch(text)
    if named is None:
        return _parse_tensor(None, text)
    name, sign, value = named.groups()
    if sign == ":=":
        return DeclaredLiteral(name, _parse_literal(value))
    return _parse_tensor(name, value)


def _parse_tensor(name: str | None, text: str) -> DeclaredTensor:
    """Parse `float32[N,10]`, or only the dims: `N,10`. Relations may follow after `where`."""
    text, separator, relations = text.partition(" where ")
    if separator:
        where = parse_where(relations)
        return replace(_parse_tensor(name, text), where=where)
    typed = _TYPED.fullmatch(text)
    if typed is None:
        if "[" in text:
            raise ValueError(f"not a tensor: {shorten(text)} (as in float32[N,10])")
        return DeclaredTensor(name, None, _parse_dims(text))
    dtype, dims = typed.groups()
    if not is_numeric(dtype):
        common = ", ".join(known.name for known in DTYPES[:MAX_SUGGESTED_DTYPES])
        raise ValueError(f"there is no dtype {dtype} (use one of {common})")
    if not dims.strip():
        return DeclaredTensor(name, dtype, ())
    return DeclaredTensor(name, dtype, _parse_dims(dims))


def _parse_literal(text: str) -> bool | int | float | str | None:
    """Return a number, bool or None if the text is one, else the text itself."""
    word = text.strip()
    if word.lower() in _LITERALS:
        return _LITERALS[word.lower()]
    if _INTEGER.fullmatch(word):
        return _parse_integer(word)
    try:
        return float(word)
    except ValueError:
        return word


def _parse_integer(word: str) -> int:
    """Return an integer that a tensor or an argument of a model can hold.

    Raises:
        ValueError: if it has more than 64 bits.
    """
    number = read_integer(word)
    if abs(number) > MAX_SIZE:
        raise ValueError(f"{word} is not an integer of 64 bits")
    return number


def _parse_dims(text: str) -> Shape:
    """Parse dims separated by commas; the user cannot declare a derived dim."""
    if len(text) > MAX_SHAPE_LENGTH:
        raise ValueError(f"too long for the sizes of a tensor: {shorten(text)}")
    dims = parse_shape(text)
    if len(dims) > MAX_AXES:
        raise ValueError(f"a tensor has at most {MAX_AXES} axes, and not {len(dims)}")
    for dim in dims:
        if bounds(dim) is None:
            raise ValueError(f"an input dim is a size or a name; this is neither: {dim}")
    return dims


def are_exact(inputs: tuple[Declared, ...]) -> bool:
    """Return whether the user stated inputs and none of their sizes by a name, as in `N,3,H,W`.

    Saved tensors have the sizes that they were saved with, and a plain value has none.
    """
    tensors = [declared for declared in inputs if not isinstance(declared, DeclaredLiteral)]
    for declared in tensors:
        if isinstance(declared, DeclaredTensor) and any(map(is_variable, declared.dims)):
            return False
    return bool(tensors)


def example_sizes(dims: Shape, known: dict[str, int] | None = None) -> tuple[int, ...]:
    """Return sizes to try for an input: fixed sizes as they are, and one size for each name.

    `(N, T>=20, T>=20, 3)` has the example `(2, 20, 20, 3)`. `known` maps names to the sizes that
    other inputs use already.

    Raises:
        ValueError: if a dim is neither fixed nor free.
    """
    by_name = dict(known or {})
    sizes = list[int]()
    for axis, dim in enumerate(dims):
        size = fixed_size(dim)
        if size is None:
            free = as_free(dim)
            if free is None:
                raise ValueError(f"no example for {dim}")
            near = _EXAMPLE_BATCH if axis == 0 else _EXAMPLE_SIZE
            size = by_name.setdefault(free.name, example_size(free, near))
        sizes.append(size)
    return tuple(sizes)


def example_by_name(dims: Shape, known: dict[str, int]) -> dict[str, int]:
    """Return the example size of each name among the dims, as `example_sizes` chooses them."""
    sizes = example_sizes(dims, known)
    by_name = dict[str, int]()
    for dim, size in zip(dims, sizes, strict=True):
        free = as_free(dim)
        if free is not None:
            by_name[free.name] = size
    return by_name
