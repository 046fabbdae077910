"""Exploration finds exactly the dims of models whose dims are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.dims import Dim, Fixed, Free, admits, as_expr, example_size, parse_dim
from composecli.core.observations import Accepted, Observation, Rejected, Untried
from composecli.core.pytree import Argument, Call, TensorSpec, call_leaves
from composecli.core.size_expr import evaluate
from composecli.inference.axis_groups import Example
from composecli.inference.free_dims import explore_axes

Runs = Callable[[Call], Observation]
NO = Rejected(0, "RuntimeError", "no", "cpu")


def model(inputs: list[list[Dim]], outputs: list[Dim]) -> Runs:
    """Return a model that accepts exactly these dims, with equal sizes for equal names."""

    def probe(call: Call) -> Observation:
        sizes = dict[str, int]()
        for (_, tensor), dims in zip(call_leaves(call), inputs, strict=True):
            for dim, size in zip(dims, tensor.sizes, strict=True):
                if not admits(dim, size) or (
                    isinstance(dim, Free) and sizes.setdefault(dim.name, size) != size
                ):
                    return NO
        found = tuple(
            evaluate(expr, sizes) for dim in outputs if (expr := as_expr(dim)) is not None
        )
        return Accepted((TensorSpec("float32", found),), "cpu")

    return probe


def explored(
    inputs: list[list[Dim]], outputs: list[Dim], near: int, limits: tuple[int, ...] = ()
) -> list[str]:
    """Return the dims that exploration finds: those of each input, then of the output."""
    bases = {
        dim.name: example_size(dim, near)
        for dims in inputs
        for dim in dims
        if isinstance(dim, Free)
    }
    specs = [
        TensorSpec(
            "float32",
            tuple(bases[dim.name] if isinstance(dim, Free) else int(str(dim)) for dim in dims),
        )
        for dims in inputs
    ]
    call, probe = Call(tuple(map(Argument, specs))), model(inputs, outputs)
    seen = probe(call)
    assert isinstance(seen, Accepted)
    found = explore_axes(Example(call, seen.result, frozenset(), {}, limits), probe)
    ports = [dims for _, dims in sorted(found.inputs.items())] + [found.outputs[0].dims or ()]
    return [", ".join(map(str, dims)) for dims in ports]


@pytest.mark.parametrize(
    ("inputs", "outputs", "near", "found"),
    [
        (["N, 3, H>=32, W>=32"], "N, 512, ceil(H/32), ceil(W/32)", 64, None),
        (
            ["N, 3, H%16==0, W%16==0"],
            "N, (H//16)*(W//16) + 1, 8",
            64,
            ["N, 3, H%16==0, W%16==0", None],
        ),
        (["N, 3, 209<=H<=224, 193<=W<=224"], "N, 10", 224, None),
        (["N, 3, 224, 224"], "N, 10", 224, None),
        (["1, 3, 224, 224"], "1, 10", 224, None),
        (["N, 3, H<=56 & H%14==0, W"], "N, W", 28, None),
        (["N%2==0, 7"], "N//2, 7", 4, ["N%2==0, 7", None]),
        (["N, T<=64", "N, T<=64"], "N, T, 8", 8, ["N, D<=64", "N, D<=64", "N, D<=64, 8"]),
        (["N, 7", "N, N"], "N, 3", 9, ["N, 7", "N, N", "N, 3"]),
        (["N, 3, H, W", "N, 3, H, W"], "N, 2, H, W", 16, None),
        (
            ["N, 3, H%8==0, W%8==0", "N, 3, H%8==0, W%8==0"],
            "N, 2, H, W",
            64,
            [*["N, 3, H%8==0, W%8==0"] * 2, None],
        ),
        (["N, 5", "M, 6"], "N, M", 2, ["N, 5", "N2, 6", "N, N2"]),
        (["D>=400"], "(D - 400)//320 + 1", 4000, ["N>=400", "(N + 240)//320 - 1"]),
    ],
)
def test_dims_are_found_exactly(
    inputs: list[str], outputs: str, near: int, found: list[str | None] | None
) -> None:
    def dims(text: str) -> list[Dim]:
        return [parse_dim(part) for part in text.split(",")]

    wanted = found or [*inputs, outputs]
    said = explored([dims(text) for text in inputs], dims(outputs), near)
    assert [text if wanted[number] else None for number, text in enumerate(said)] == wanted


def test_upper_bound_far_above_the_base_is_found_at_the_length_of_a_table() -> None:
    ids: list[Dim] = [Free("N"), Free("T", 1, 512)]
    assert explored([ids], [Free("N"), Fixed(4)], 8, limits=(512,)) == ["N, D<=512", "N, 4"]
    shifted: list[Dim] = [Free("N"), Free("T", 1, 510)]
    assert explored([shifted], [Free("N"), Fixed(4)], 8, limits=(512,)) == ["N, D<=510", "N, 4"]


RANGES = st.builds(
    lambda low, more, step, closed: (low * step, (low + more) * step if closed else None, step),
    st.integers(1, 9),
    st.integers(3, 12),
    st.sampled_from([1, 1, 1, 2, 4, 8, 7, 16]),
    st.booleans(),
)


@given(RANGES, RANGES, st.integers(0, 3))
def test_ranges_are_exact_or_unknown(
    one: tuple[int, int | None, int], other: tuple[int, int | None, int], ahead: int
) -> None:
    dims: list[Free] = []
    for name, (low, high, step) in (("H", one), ("W", other)):
        dims.append(Free(name, low if low > step else 1, high, step))
    inputs: list[Dim] = [Fixed(5), Fixed(3), *dims]
    near = max(one[0], other[0]) + ahead
    if any(dim.high is not None and dim.high < near for dim in dims):
        near = min(one[0], other[0])
    found = explored([inputs], [dims[0], Fixed(2)], near)
    for said, true in zip(found[0].split(", ")[2:], dims, strict=True):
        base = example_size(true, near)
        allowed = {str(true), "?", str(base)}
        if true.high is not None and true.high >= 2 * base:
            # A distant upper bound is found only if the model has a table of that length.
            allowed.add(str(replace(true, high=None)))
        assert said in allowed, (said, str(true))


def test_broadcast_size_is_not_the_lower_bound() -> None:
    def probe(call: Call) -> Observation:
        (spec,) = (spec for _, spec in call_leaves(call))
        return (
            Accepted((TensorSpec("float32", spec.sizes),), "cpu")
            if spec.sizes[1] in (1, *range(4, 99))
            else NO
        )

    call = Call((Argument(TensorSpec("float32", (2, 8))),))
    found = explore_axes(Example(call, TensorSpec("float32", (2, 8)), frozenset(), {}), probe)
    assert str(found.inputs[(0,)][1]) == "4<=D<=98"


@pytest.mark.parametrize(("taken", "found"), [((1, 2, 199, 200), "199<=D<=200"), ((8, 64), "64")])
def test_size_far_below_the_others_counts_as_broadcast(taken: tuple[int, ...], found: str) -> None:
    def probe(call: Call) -> Observation:
        (spec,) = (spec for _, spec in call_leaves(call))
        return Accepted((TensorSpec("float32", (2,)),), "cpu") if spec.sizes[1] in taken else NO

    call = Call((Argument(TensorSpec("float32", (2, max(taken)))),))
    seen = explore_axes(Example(call, TensorSpec("float32", (2,)), frozenset(), {}), probe)
    assert str(seen.inputs[(0,)][1]) == found


def test_bounds_that_hold_only_separately_are_reported_as_coupled() -> None:
    """Height and width share a table of 16 positions, one for each patch of 8 by 8."""

    def probe(call: Call) -> Observation:
        (spec,) = (spec for _, spec in call_leaves(call))
        patches = (spec.sizes[2] // 8) * (spec.sizes[3] // 8)
        whole = spec.sizes[2] % 8 == spec.sizes[3] % 8 == 0
        return Accepted((TensorSpec("float32", (2,)),), "cpu") if whole and patches <= 16 else NO

    call = Call((Argument(TensorSpec("float32", (2, 3, 16, 16))),))
    found = explore_axes(Example(call, TensorSpec("float32", (2,)), frozenset(), {}), probe)
    assert len(found.coupled) == 2


def test_dims_are_unknown_when_the_budget_ends() -> None:
    runs = model([[Free("N"), Fixed(3), Free("H", 4), Free("W", 4)]], [Free("N")])
    left = [9]

    def probe(call: Call) -> Observation | Untried:
        left[0] -= 1
        return runs(call) if left[0] > 0 else Untried("the budget is spent")

    call = Call((Argument(TensorSpec("float32", (2, 3, 16, 16))),))
    found = explore_axes(Example(call, TensorSpec("float32", (2,)), frozenset(), {}), probe)
    reasons = [getattr(dim, "reason", "") for dim in found.inputs[(0,)]]
    assert any("the budget is spent" in reason for reason in reasons)
