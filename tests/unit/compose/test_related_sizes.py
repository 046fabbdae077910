"""Relations of a consumer are judged at the example, and for all sizes of the producer."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.compose.compare import ConsumerPort, ProducerPort, compare, pair_conditions
from composecli.compose.fitting_sizes import fitting_sizes
from composecli.compose.shared_symbols import shared_symbol_findings
from composecli.core.dims import Free, as_expr
from composecli.core.relations import all_hold, parse_where
from composecli.core.size_expr import evaluate
from tests.parsing import port, spec


def pair(
    gives: str, example: str, takes: str, where: str, known: str = ""
) -> tuple[ProducerPort, ConsumerPort]:
    """Return a producer, and a consumer whose dims are related."""
    ranges = tuple(Free(name) for name in ("N", "C", "H", "W"))
    known_relations = parse_where(known) if known else ()
    producer = ProducerPort("a.pt", port(gives), spec(example), ranges, where=known_relations)
    return producer, ConsumerPort("b.pt", port(takes), parse_where(where))


FLAT = ("float32[N, C, H, W]", "C*H*W == 1024")
ROWS = "float32[N, T]"
VIEW = ("float32[N, C, H, W]", "N*C*H*W % 1024 == 0")


@pytest.mark.parametrize(
    ("gives", "example", "takes", "title"),
    [
        ("float32[N, 16, H, W]", "float32[2, 16, 9, 8]", FLAT, "C*H*W is 1152, not 1024"),
        ("float32[N, 7, H, W]", "float32[2, 7, 9, 8]", FLAT, "C*H*W is 504, not 1024"),
        (
            "float32[N, 3, H, W]",
            "float32[2, 3, 5, 5]",
            VIEW,
            "N*C*H*W is 150, which is no multiple of 1024",
        ),
        (ROWS, "float32[9, 5]", ("float32[A, B]", "A<=B"), "A is 9, more than B, which is 5"),
        (ROWS, "float32[9, 5]", ("float32[A, B]", "A == 2*B"), "2*B is 10, not A, which is 9"),
        (
            "float32[N, 16, ceil(H/4), ceil(W/4)]",
            "float32[2, 16, 8, 8]",
            FLAT,
            "compatible when ceil(H/4)*ceil(W/4) == 64",
        ),
        ("float32[N, 16, H, 4]", "float32[2, 16, 16, 4]", FLAT, "compatible when H==16"),
        (
            "float32[N, 16, ceil(H/4), 4]",
            "float32[2, 16, 16, 4]",
            FLAT,
            "compatible when 61<=H<=64",
        ),
        ("float32[N, 16, 8, 8]", "float32[2, 16, 8, 8]", VIEW, None),
        ("float32[N, 16, H, 8]", "float32[2, 16, 8, 8]", VIEW, "compatible when N*H % 8 == 0"),
    ],
)  # fmt: skip
def test_a_relation_is_judged(
    gives: str, example: str, takes: tuple[str, str], title: str | None
) -> None:
    titles = [finding.title for finding in compare(*pair(gives, example, *takes))]
    assert titles == ([] if title is None else [title])


def test_what_the_producer_keeps_anyway_is_no_condition() -> None:
    ports = pair("float32[N, C, H, W]", "float32[2, 16, 8, 8]", *FLAT, known="C*H*W == 1024")
    assert not compare(*ports, strict=True)


def test_a_size_that_breaks_a_relation_is_named() -> None:
    ports = pair("float32[N, 16, H, W]", "float32[2, 16, 8, 8]", *FLAT)
    (finding,) = compare(*ports, strict=True)
    assert finding.title == "fits only when H*W == 64"
    ports = pair("float32[N, 16, H, 4]", "float32[2, 16, 16, 4]", *FLAT)
    (finding,) = compare(*ports, strict=True)
    assert finding.title == "fits only when H==16"
    assert finding.notes == ("it fails at H = 1",)


def test_a_product_with_a_factor_that_the_number_lacks_is_never_met() -> None:
    (condition,) = pair_conditions(*pair("float32[N, 7, H, W]", "float32[2, 7, 9, 8]", *FLAT))
    assert condition.why_never == "7*H*W is never 1024"


def test_a_relation_of_two_equal_sides_is_stated_for_each() -> None:
    gives = "float32[N, 16, ceil(H/4), ceil(W/4)]"
    producer, consumer = pair(gives, "float32[2, 16, 8, 8]", *FLAT)
    (finding,) = compare(replace(producer, sizes={"N": 2, "H": 32, "W": 32}), consumer)
    assert finding.title == "compatible when 29<=H<=32 and 29<=W<=32"
    assert "it fits wherever ceil(H/4)*ceil(W/4) == 64" in finding.notes


def test_a_relation_of_an_unknown_size_is_undecided() -> None:
    ports = pair("float32[N, 16, ?, W]", "float32[2, 16, 8, 8]", *FLAT)
    assert not compare(*ports)
    (finding,) = compare(*ports, strict=True)
    assert finding.title == "cannot decide for every size"


def test_inputs_of_several_producers_are_related() -> None:
    queries = pair("float32[N, H, 8]", "float32[2, 5, 8]", "float32[N, T, 8]", "T<=S")
    keys = pair("float32[N, W, 8]", "float32[2, 4, 8]", "float32[N, S, 8]", "T<=S")
    titles = [finding.title for finding in shared_symbol_findings((queries, keys))]
    assert titles == ["T is 5, more than S, which is 4"]
    longer = pair("float32[N, W, 8]", "float32[2, 6, 8]", "float32[N, S, 8]", "T<=S")
    titles = [finding.title for finding in shared_symbol_findings((queries, longer))]
    assert titles == ["compatible when H<=W"]


EXPRS = st.sampled_from(["H", "ceil(H/2)", "ceil(H/4)", "2*H", "W", "W + 1", "H + W", "3", "8"])
WHERE = st.sampled_from(
    ["A*B == 24", "A*B == 17", "A*B % 6 == 0", "A<=B", "A == B", "A == 2*B", "B<=5"]
)


@given(EXPRS, EXPRS, WHERE)
def test_a_condition_holds_exactly_where_the_relation_does(one: str, two: str, where: str) -> None:
    relations = parse_where(where)
    dims = port(f"float32[{one}, {two}]").dims or ()
    exprs = {name: expr for name, dim in zip("AB", dims, strict=True) if (expr := as_expr(dim))}
    truths = list[tuple[dict[str, int], bool]]()
    for height, width in product(range(1, 26), range(1, 26)):
        sizes = {"H": height, "W": width}
        taken = {name: evaluate(expr, sizes) for name, expr in exprs.items()}
        truths.append((sizes, all_hold(relations, taken)))
    fitting = [sizes for sizes, fits in truths if fits]
    if not fitting:
        return
    example = [str(evaluate(expr, fitting[0])) for expr in exprs.values()]
    ports = pair(f"float32[{one}, {two}]", f"float32[{', '.join(example)}]", "float32[A, B]", where)
    titles = [finding.title for finding in compare(*ports)]
    condition = "True"
    if titles:
        condition = titles[0].removeprefix("compatible when ")
    condition = condition.replace("&", "and")
    for sizes, fits in truths:
        assert eval(condition, {"ceil": math.ceil}, sizes) == fits  # noqa: S307


@pytest.mark.parametrize(
    ("gives", "where", "expected"),
    [
        ("float32[N, 16, ceil(H/4), ceil(W/4)]", "C*H*W == 1024", {"H": 32, "W": 32}),
        ("float32[N, 16, H, 4]", "C*H*W == 1024", {"H": 16}),
        ("float32[N, 7, H, W]", "C*H*W == 1024", None),
        ("float32[N, 3, H, W]", "C*H*W % 50 == 0", {"H": 60, "W": 60}),
    ],
)
def test_sizes_that_meet_a_relation_are_found(
    gives: str, where: str, expected: dict[str, int] | None
) -> None:
    sizes = {"N": 2, "H": 64, "W": 64}
    example = [evaluate(expr, sizes) for dim in port(gives).dims or () if (expr := as_expr(dim))]
    text = f"float32[{', '.join(map(str, example))}]"
    ports = pair(gives, text, "float32[N, C, H, W]", where)
    assert fitting_sizes((ports,), ports[0].ranges, sizes) == expected
