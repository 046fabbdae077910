"""Parsing the text form of specs and ports, and the tables of cases that tests are written in."""

from __future__ import annotations

from pathlib import Path

from composecli.core.contract import Port
from composecli.core.dims import parse_shape
from composecli.core.pytree import TensorSpec

_CASES = Path(__file__).with_name("cases")


def spec(text: str) -> TensorSpec:
    """Parse `float32[2, 5]`."""
    dtype, _, sizes = text.strip().rstrip("]").partition("[")
    return TensorSpec(dtype, tuple(int(size) for size in sizes.split(",") if size.strip()))


def port(text: str, name: str = "x") -> Port:
    """Parse `float32[N, H//2]` or `float32[*]`."""
    dtype, _, dims = text.strip().removesuffix("]").partition("[")
    if dims == "*":
        return Port(name, (), dtype, None)
    return Port(name, (), dtype, parse_shape(dims) if dims.strip() else ())


def lines(name: str) -> list[str]:
    """Return the cases of a file under `cases`, without comments."""
    text = (_CASES / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]
