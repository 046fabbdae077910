"""Input specs: what `--input` states, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from composecli.core.dims import Dim, Fixed, Free, Shape, example_size, parse_dim
from composecli.core.dtypes import DTYPES

EXAMPLE_SIZE = 2


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """A tensor input as the user stated it. `dtype` is None where only sizes were given: an example."""

    name: str | None
    dtype: str | None
    dims: Shape


@dataclass(frozen=True, slots=True)
class DeclaredLiteral:
    name: str | None
    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class DeclaredSample:
    """Inputs that a file of saved tensors holds."""

    path: str


Declared = DeclaredTensor | DeclaredLiteral | DeclaredSample


_NAME = re.compile(r"\s*([A-Za-z_]\w*)\s*(:?=)(?!=)(.*)", re.DOTALL)


_TYPED = re.compile(r"\s*(\w+)\s*\[(.*)\]\s*", re.DOTALL)


def parse_input(text: str) -> Declared:
    """What `--input` states: `float32[N,3,224,224]`, `1,3,224,224`, `ids=int64[1,16]`, `rate:=16000`, `@sample.pt`.

    Raises:
        ValueError: it states no input, said in words for a person.
    """
    if text.startswith("@"):
        if len(text) == 1:
            raise ValueError("no file after @")
        return DeclaredSample(text[1:])
    if text.startswith(":="):
        return DeclaredLiteral(None, _literal(text[2:]))
    name = None
    if named := _NAME.fullmatch(text):
        name, sign, text = named.groups()
        if sign == ":=":
            return DeclaredLiteral(name, _literal(text))
    typed = _TYPED.fullmatch(text)
    if typed is None:
        return DeclaredTensor(name, None, _dims(text))
    dtype, inner = typed.groups()
    if dtype not in DTYPES:
        raise ValueError(f"no dtype is called {dtype} (one of {', '.join(DTYPES[:11])})")
    return DeclaredTensor(name, dtype, _dims(inner) if inner.strip() else ())


def _literal(text: str) -> bool | int | float | str | None:
    word = text.strip()
    named = {"true": True, "false": False, "none": None}
    if word.lower() in named:
        return named[word.lower()]
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return word


def _dims(text: str) -> Shape:
    dims = list[Dim]()
    for part in text.split(","):
        dim = parse_dim(part)
        if not isinstance(dim, Fixed | Free):
            raise ValueError(f"an input dim is a size or a name, this is neither: {part.strip()}")
        dims.append(dim)
    return tuple(dims)


def example_sizes(dims: Shape, known: dict[str, int] | None = None) -> tuple[int, ...]:
    """Sizes to try for a port: fixed ones as they are, one size for each name.

    Raises:
        ValueError: a dim is neither fixed nor free.
    """
    chosen = dict(known or {})
    sizes = list[int]()
    for axis, dim in enumerate(dims):
        match dim:
            case Fixed(size):
                sizes.append(size)
            case Free(name):
                sizes.append(
                    chosen.setdefault(name, example_size(dim, EXAMPLE_SIZE if axis == 0 else 8))
                )
            case _:
                raise ValueError(f"no example for {dim}")
    return tuple(sizes)
