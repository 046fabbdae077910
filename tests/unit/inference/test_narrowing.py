"""A contract is narrowed to the sizes at which what follows its model works."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from composecli.core.contract import Contract, Port
from composecli.core.dims import parse_shape
from composecli.core.observations import Accepted, Observation, Rejected
from composecli.core.pytree import Argument, Call, TensorSpec, call_leaves
from composecli.inference.axis_groups import Example
from composecli.inference.narrowing import narrow

Takes = Callable[[int, int, int], bool]


def narrowed(takes: Takes, side: int = 32) -> tuple[list[str], tuple[tuple[str, ...], ...]]:
    """Return the narrowed dims of `float32[N, H, W]` for a model that takes these sizes."""
    spec = TensorSpec("float32", (2, side, side))
    call = Call((Argument(spec),))
    port = Port("x", (0,), "float32", parse_shape("N, H, W"))
    contract = Contract((port,), (), call, spec, ())

    def probe(tried: Call) -> Observation:
        (_, found) = next(call_leaves(tried))
        if takes(*found.sizes):
            return Accepted((spec,), "cpu")
        return Rejected(1, "RuntimeError", "no", "cpu")

    found = narrow(contract, Example(call, spec, frozenset(), {}), probe)
    texts = [str(dim) for dim in found.dims.values()]
    return texts + [f"? {reason.partition(':')[0]}" for reason in found.undecided], found.equal


@pytest.mark.parametrize(
    ("takes", "texts", "equal"),
    [
        (lambda n, h, w: True, ["N", "H", "W"], ()),
        (lambda n, h, w: n == 2, ["N==2", "H", "W"], ()),
        (lambda n, h, w: -(-h // 4) * -(-w // 4) == 64, ["N", "29<=H<=32", "29<=W<=32"], ()),
        (lambda n, h, w: h % 8 == 0 and w >= 5, ["N", "H%8==0", "W>=5"], ()),
        (lambda n, h, w: h == w, ["N", "H", "W"], (("H", "W"),)),
        (lambda n, h, w: h == w and h % 4 == 0, ["N", "H%4==0", "W%4==0"], (("H", "W"),)),
    ],
)
def test_the_sizes_of_each_symbol_are_found(
    takes: Takes, texts: list[str], equal: tuple[tuple[str, ...], ...]
) -> None:
    assert narrowed(takes) == (texts, equal)


def test_sizes_without_a_form_are_undecided() -> None:
    texts, _ = narrowed(lambda n, h, w: math.isqrt(h) ** 2 == h, side=36)
    assert texts == ["N", "W", "? H"]
