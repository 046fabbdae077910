"""Relations: text and meaning are one to one, and a relation is in lowest terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.dims import Free, admits
from composecli.core.relations import (
    Comparison,
    Relation,
    all_hold,
    format_where,
    holds,
    other_sizes_meeting,
    parse_relation,
    parse_where,
    relate,
    sizes_meeting,
    substitute_relation,
)
from composecli.core.size_expr import Const, Expr, Symbol, add, ceil_divide, floor_divide, multiply

NAMES = ("N", "T", "H", "prod(*)")
EXPRS = st.recursive(
    st.one_of(st.builds(Const, st.integers(0, 40)), st.builds(Symbol, st.sampled_from(NAMES))),
    lambda inner: st.one_of(
        st.builds(add, inner, inner),
        st.builds(multiply, inner, inner),
        st.builds(floor_divide, inner, st.integers(1, 9)),
        st.builds(ceil_divide, inner, st.integers(1, 9)),
    ),
    max_leaves=6,
)
SIZES = st.fixed_dictionaries(dict.fromkeys(NAMES, st.integers(1, 50)))


@st.composite
def relations(draw: st.DrawFn) -> Relation:
    """Return a relation of any kind."""
    comparison = draw(st.sampled_from(Comparison))
    right: Expr = Const(draw(st.integers(1, 40)))
    if comparison is not Comparison.MULTIPLE_OF:
        right = draw(EXPRS)
    return relate(draw(EXPRS), comparison, right)


RELATIONS = relations()


@given(RELATIONS)
def test_a_printed_relation_is_read_back(relation: Relation) -> None:
    assert parse_relation(str(relation)) == relation


@given(st.lists(RELATIONS, min_size=1, max_size=3))
def test_printed_relations_are_read_back(where: list[Relation]) -> None:
    text = format_where(where)
    assert parse_where(text.removeprefix(" where ")) == tuple(where)


@given(EXPRS, st.sampled_from(Comparison), EXPRS, SIZES)
def test_lowest_terms_mean_the_same(
    left: Expr, comparison: Comparison, right: Expr, sizes: dict[str, int]
) -> None:
    if comparison is Comparison.MULTIPLE_OF:
        right = Const(12)
    as_written = Relation(left, comparison, right)
    assert holds(relate(left, comparison, right), sizes) == holds(as_written, sizes)


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("C*H*W == 1024", "C*H*W == 1024"),
        ("1024 == W*H*C", "C*H*W == 1024"),
        ("16*ceil(H/4)*ceil(W/4)==1024", "ceil(H/4)*ceil(W/4) == 64"),
        ("N*C*H*W%1024==0", "N*C*H*W % 1024 == 0"),
        ("6*T % 16 == 0", "T % 8 == 0"),
        ("(T + 1) % 4 == 0", "(T + 1) % 4 == 0"),
        ("S >= T", "T<=S"),
        ("T < S", "T + 1 <= S"),
        ("2*T == 2*S", "S == T"),
        ("prod(*) == 1024", "prod(*) == 1024"),
        ("prod(*) % 64 == 0", "prod(*) % 64 == 0"),
    ],
)
def test_a_relation_has_one_form(text: str, printed: str) -> None:
    assert str(parse_relation(text)) == printed


@pytest.mark.parametrize(
    "text",
    ["", "H", "H*W", "H == ", "H % 4 == 1", "H % 0 == 0", "H % W == 0", "1 <= H <= 3", "H != 3",
     "H**2 == 4", "f(H) == 2"],
)  # fmt: skip
def test_what_is_no_relation_is_refused_with_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"dim|size"):
        parse_relation(text)


def test_a_relation_holds_only_where_all_sizes_are_known() -> None:
    where = parse_where("C*H == 12 and H<=C")
    assert all_hold(where, {"C": 4, "H": 3})
    assert not all_hold(where, {"C": 3, "H": 4})
    assert not all_hold(where, {"C": 12})


def test_a_relation_is_substituted_in_lowest_terms() -> None:
    relation = parse_relation("C*H*W == 1024")
    by = {"C": Const(16), "H": ceil_divide(Symbol("Y"), 4)}
    assert str(substitute_relation(relation, by)) == "W*ceil(Y/4) == 64"


@given(st.lists(RELATIONS, min_size=1, max_size=2), SIZES)
def test_sizes_that_are_found_meet_the_relations(
    where: list[Relation], start: dict[str, int]
) -> None:
    ranges = {"N": Free("N", high=9), "H": Free("H", step=3)}
    found = sizes_meeting(tuple(where), ranges, start)
    if found is None:
        assert not all_hold(where, start)
        return
    assert all_hold(where, found)
    changed = {name for name in found if found[name] != start[name]}
    assert all(admits(ranges[name], found[name]) for name in changed)


@pytest.mark.parametrize(
    ("where", "start", "found"),
    [
        ("C*H*W == 1024", {"C": 8, "H": 8, "W": 8}, {"C": 16, "H": 8, "W": 8}),
        ("C*H*W == 49", {"C": 1, "H": 8, "W": 8}, {"C": 1, "H": 7, "W": 7}),
        ("T<=S", {"T": 8, "S": 2}, {"T": 2, "S": 2}),
        ("2*H == 7", {"H": 8}, None),
    ],
)
def test_the_nearest_sizes_that_meet_a_relation(
    where: str, start: dict[str, int], found: dict[str, int] | None
) -> None:
    ranges = {name: Free(name) for name in start}
    assert sizes_meeting(parse_where(where), ranges, start) == found


def test_the_search_for_sizes_ends() -> None:
    names = "ABCDEFGHIJKLMN"
    where = parse_where(f"{'*'.join(names)} == 1000003")
    ranges = {name: Free(name) for name in names}
    assert sizes_meeting(where, ranges, dict.fromkeys(names, 2)) is None


def test_a_relation_of_an_unknown_dim_is_not_searched_for() -> None:
    (relation,) = parse_where("N*Z == 7")
    assert sizes_meeting((relation,), {"N": Free("N")}, {"N": 2}) is None


def test_sizes_of_an_odd_product_are_found() -> None:
    where = parse_where("C*H*W == 125")
    ranges = {name: Free(name) for name in "CHW"}
    found = sizes_meeting(where, ranges, {"C": 8, "H": 8, "W": 8})
    assert found is not None
    assert all_hold(where, found)


def test_another_size_of_the_only_related_dim_meets_the_relation_too() -> None:
    where = parse_where("(L//2 - 1) % 12 == 0")
    others = list(other_sizes_meeting(where, {"L": Free("L", 4)}, {"L": 26}))
    assert others == [{"L": 51}]
