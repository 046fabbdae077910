"""The rule that is left after all splitting probes is the rule that made the sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.dims import as_dim
from composecli.core.size_expr import (
    Const,
    Expr,
    Symbol,
    add,
    evaluate,
    floor_divide,
    multiply,
    substitute,
)
from composecli.inference.size_rules import (
    JointSample,
    Run,
    SizeRule,
    candidates,
    combine,
    rule_of_runs,
    splitting_size,
)

BASE = 96
NAME = Symbol("H")
RULES: st.SearchStrategy[Expr] = st.one_of(
    st.builds(
        lambda k, p, c: add(floor_divide(add(NAME, Const(p % k)), k), Const(c)),
        st.integers(1, 32),
        st.integers(0, 31),
        st.integers(-1, 3),
    ),
    st.builds(
        lambda k, m, c: add(multiply(Const(m), floor_divide(NAME, k)), Const(c)),
        st.integers(1, 32),
        st.integers(1, 64),
        st.integers(-2, 5),
    ),
    st.builds(
        lambda a, c: add(multiply(Const(a), NAME), Const(c)), st.integers(1, 32), st.integers(-9, 9)
    ),
)


@given(RULES)
def test_single_remaining_rule_is_the_true_one(rule: Expr) -> None:
    seen = {size: evaluate(rule, {"H": size}) for size in (BASE, BASE + 1, BASE * 2, BASE - 1)}
    for _ in range(8):
        left = candidates(seen)
        size = splitting_size(
            left, [size for size in range(BASE + 1, BASE + 70) if size not in seen]
        )
        if size is None:
            break
        seen[size] = evaluate(rule, {"H": size})
    left = candidates(seen)
    if len(left) == 1:
        assert all(left[0].at(size) == evaluate(rule, {"H": size}) for size in range(64, 400))


def test_constant_output_has_a_constant_rule() -> None:
    assert [rule.expr("H") for rule in candidates({32: 7, 33: 7, 64: 7})] == [Const(7)]


def test_squares_fit_no_rule() -> None:
    assert candidates({2: 4, 3: 9, 4: 16}) == ()


NAMES = (Symbol("N"), Symbol("T"))


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (multiply(Const(3), *NAMES), "3*N*T"),
        (add(*NAMES), "N + T"),
        (add(multiply(Const(2), NAMES[0]), floor_divide(NAMES[1], 2), Const(5)), "2*N + T//2 + 5"),
        (multiply(Const(8), floor_divide(NAMES[0], 2), NAMES[1]), "8*(N//2)*T"),
        (add(multiply(*NAMES), NAMES[0]), "N*(T + 1)"),
        (
            add(multiply(floor_divide(NAMES[0], 2), floor_divide(NAMES[1], 4)), Const(1)),
            "(N//2)*(T//4) + 1",
        ),
        (add(multiply(*NAMES), NAMES[0], multiply(Const(2), NAMES[1])), "(N + 2)*(T + 1) - 2"),
        (add(multiply(NAMES[0], *NAMES), NAMES[0]), None),
    ],
)
def test_joint_sample_distinguishes_sums_from_products(rule: Expr, found: str | None) -> None:
    """If one size changes at a time, a sum and a product look alike."""
    base = {"N": 4, "T": 8}
    parts = {
        name: substitute(rule, {other: Const(base[other]) for other in base if other != name})
        for name in base
    }
    moved = {"N": 7, "T": 19}
    expr = combine(
        parts, JointSample(base, evaluate(rule, base)), JointSample(moved, evaluate(rule, moved))
    )
    assert (None if expr is None else str(as_dim(expr))) == found


@given(
    st.integers(1, 9),
    st.integers(0, 40),
    st.integers(1, 40),
    st.integers(-9, 9),
    st.integers(1, 300),
)
def test_rule_and_its_expression_agree(
    scale: int, shift: int, divisor: int, offset: int, size: int
) -> None:
    rule = SizeRule(scale, shift, divisor, offset)
    assert evaluate(rule.expr("H"), {"H": size}) == rule.at(size)


@given(
    st.builds(Run, st.integers(1, 500), st.integers(1, 64)),
    st.integers(1, 8),
    st.integers(1, 100),
)
def test_a_rule_of_runs_steps_at_both_ends_of_the_run(run: Run, step: int, size: int) -> None:
    rule = rule_of_runs(run, step, size)
    assert {rule.at(run.first + more) for more in range(run.length)} == {size}
    assert [rule.at(outside) - size for outside in run.outside] == [step, -step, 2 * step]
