"""Fitting: what is left after the splitting probes is the rule that made the sizes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from composecli.dims import Const, Expr, Symbol, add, evaluate, floor_divide, multiply
from composecli.fit import candidates, product_of, splitting_size

BASE = 96
NAME = Symbol("H")
RULES: st.SearchStrategy[Expr] = st.one_of(
    st.builds(
        lambda k, p, c: add(floor_divide(add(NAME, Const(p % k)), k), Const(c)),
        st.integers(1, 32),
        st.integers(0, 31),
        st.integers(-1, 3),
    ),
    st.builds(lambda k, m: multiply(Const(m), floor_divide(NAME, k)), st.integers(1, 32), st.integers(1, 64)),
    st.builds(lambda a, c: add(multiply(Const(a), NAME), Const(c)), st.integers(1, 32), st.integers(-9, 9)),
)


@given(RULES)
def test_the_rule_is_found_or_nothing_is_said(rule: Expr) -> None:
    seen = {size: evaluate(rule, {"H": size}) for size in (BASE, BASE + 1, BASE * 2, BASE - 1)}
    for _ in range(8):
        left = candidates("H", seen)
        size = splitting_size("H", left, [size for size in range(BASE + 1, BASE + 70) if size not in seen])
        if size is None:
            break
        seen[size] = evaluate(rule, {"H": size})
    left = candidates("H", seen)
    if len(left) == 1:
        assert all(evaluate(left[0], {"H": size}) == evaluate(rule, {"H": size}) for size in range(64, 400))


def test_an_output_that_does_not_change_is_constant() -> None:
    assert candidates("H", {32: 7, 33: 7, 64: 7}) == (Const(7),)


def test_no_rule_is_better_than_a_wrong_one() -> None:
    assert candidates("H", {2: 4, 3: 9, 4: 16}) == ()


def test_a_product_of_two_sizes_is_found() -> None:
    sizes = [{"N": 2, "T": 8}, {"N": 3, "T": 8}, {"N": 2, "T": 9}]
    assert product_of(sizes, [48, 72, 54]) == multiply(Const(3), Symbol("N"), Symbol("T"))
    assert product_of(sizes, [48, 72, 55]) is None
