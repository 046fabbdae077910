"""Parsing the text form of specs and ports, and the tables of cases that tests are written in."""

from __future__ import annotations

from pathlib import Path

from composecli.core.contract import Port
from composecli.core.dims import parse_axes
from composecli.core.pytree import TensorSpec

_CASES = Path(__file__).with_name("cases")


def spec(text: str) -> TensorSpec:
    """Parse `float32[2, 5]`."""
    dtype, _, sizes = text.strip().rstrip("]").partition("[")
    return TensorSpec(dtype, tuple(int(size) for size in sizes.split(",") if size.strip()))


def port(text: str, name: str = "x") -> Port:
    """Parse `float32[N, H//2]`, `float32[N, *]` or `float32[*]`."""
    dtype, _, text = text.strip().removesuffix("]").partition("[")
    if not text.strip():
        return Port(name, (), dtype, ())
    dims, rest = parse_axes(text)
    if rest is not None and not dims:
        return Port(name, (), dtype, None)
    return Port(name, (), dtype, dims, rest=rest)


def lines(name: str) -> list[str]:
    """Return the cases of a file under `cases`, without comments."""
    text = (_CASES / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]
