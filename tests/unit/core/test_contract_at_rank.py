"""A contract of any rank says for each rank what its axes have to meet."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.contract import Contract, Port, Signature, relations_of
from composecli.core.contract_at_rank import at_rank
from composecli.core.dims import parse_axes, parse_shape
from composecli.core.pytree import Argument, Call
from composecli.core.relations import format_where, parse_where
from tests.parsing import port, spec
from tests.strategies import DTYPES

FLAT = ("float32[N, *]", "prod(*) == 1024", "float32[N, 10]")
ROWS = ("float32[N, *]", "prod(*) % 16 == 0", "float32[N, prod(*)//16, 4]")
VIEW = ("float32[N, *]", "N*prod(*) % 1024 == 0", "float32[N*prod(*)//1024, 10]")
WHOLE = ("float32[*]", "prod(*) == 1024", "float32[10]")


def contract(takes: str, where: str, gives: str) -> Contract:
    """Return a contract of any rank; that of its example, which is not used, is left empty."""
    taken = replace(port(takes), path=(0,))
    signature = Signature((taken,), (port(gives),), parse_where(where))
    return Contract((), (), Call(()), spec("float32[1]"), (), (), signature)


def ranked(general: Contract, given_sizes: str, result: str) -> Contract | None:
    """Return the contract at the rank of an input of these sizes."""
    return at_rank(general, Call((Argument(spec(given_sizes)),)), spec(result))


@pytest.mark.parametrize("general", [FLAT, ROWS, VIEW, WHOLE])
def test_the_text_has_all_ranks(general: tuple[str, str, str]) -> None:
    takes, where, gives = general
    call = Call((Argument(spec("float32[2, 1024]")),))
    signature = contract(*general).any_rank
    whole = Contract((), (), call, spec("float32[2, 10]"), (), (), signature)
    assert str(whole) == f"{takes} where {where} -> {gives}"


@pytest.mark.parametrize(
    ("general", "sizes", "result", "expected"),
    [
        (FLAT, "float32[2, 1024]", "float32[2, 10]", "float32[N, 1024] -> float32[N, 10]"),
        (
            FLAT,
            "float32[2, 16, 64]",
            "float32[2, 10]",
            "float32[N, T, L] where T*L == 1024 -> float32[N, 10]",
        ),
        (
            FLAT,
            "float32[2, 16, 8, 8]",
            "float32[2, 10]",
            "float32[N, C, H, W] where C*H*W == 1024 -> float32[N, 10]",
        ),
        (ROWS, "float32[2, 32]", "float32[2, 2, 4]", "float32[N, D%16==0] -> float32[N, D//16, 4]"),
        (
            ROWS,
            "float32[2, 8, 4]",
            "float32[2, 2, 4]",
            "float32[N, T, L] where T*L % 16 == 0 -> float32[N, T*L//16, 4]",
        ),
        (VIEW, "float32[2048]", "float32[2, 10]", "float32[N%1024==0] -> float32[N//1024, 10]"),
        (
            VIEW,
            "float32[4, 512]",
            "float32[2, 10]",
            "float32[N, D] where N*D % 1024 == 0 -> float32[N*D//1024, 10]",
        ),
        (WHOLE, "float32[1024]", "float32[10]", "float32[1024] -> float32[10]"),
        (
            WHOLE,
            "float32[2, 8, 64]",
            "float32[10]",
            "float32[N, T, L] where N*T*L == 1024 -> float32[10]",
        ),
    ],
)
def test_each_rank_has_dims_of_its_own(
    general: tuple[str, str, str], sizes: str, result: str, expected: str
) -> None:
    found = ranked(contract(*general), sizes, result)
    assert found is not None
    inputs, outputs = ", ".join(map(str, found.inputs)), ", ".join(map(str, found.outputs))
    assert f"{inputs}{format_where(found.where)} -> {outputs}" == expected


@pytest.mark.parametrize(
    ("general", "sizes"),
    [
        (FLAT, "float32[2, 16, 8, 9]"),
        (FLAT, "float32[1024]"),
        (FLAT, "float64[2, 1024]"),
        (VIEW, "float32[2, 100]"),
        (WHOLE, "float32[]"),
    ],
)
def test_a_call_that_breaks_the_relation_has_no_contract(
    general: tuple[str, str, str], sizes: str
) -> None:
    assert ranked(contract(*general), sizes, "float32[2, 10]") is None


def test_a_contract_of_one_rank_has_no_other() -> None:
    call = Call((Argument(spec("float32[2, 5]")),))
    fixed = Contract((port("float32[N, 5]"),), (), call, spec("float32[1]"), ())
    assert at_rank(fixed, call, spec("float32[1]")) is None


@given(st.lists(st.integers(1, 6), max_size=5))
def test_a_rank_has_the_sizes_whose_product_fits(rest: list[int]) -> None:
    sizes = ", ".join(map(str, (3, *rest)))
    general = contract("float32[N, *]", "prod(*) == 12", "float32[N, 4]")
    found = ranked(general, f"float32[{sizes}]", "float32[3, 4]")
    assert (found is not None) == (math.prod(rest) == 12)


DIMS = st.sampled_from(["N", "3", "T%4==0", "H>=2", "H%4 in {0, 3}", "prod(*)//8", "ceil(H/2)"])


@st.composite
def open_ports(draw: st.DrawFn) -> Port:
    """Return a port with some dims, and `*` among them or not."""
    dims = parse_shape(", ".join(draw(st.lists(DIMS, min_size=1, max_size=4))))
    rest = draw(st.one_of(st.none(), st.integers(0, len(dims))))
    return Port("x", (), draw(st.sampled_from(DTYPES)), dims, rest=rest)


@given(open_ports())
def test_a_printed_port_is_read_back(printed: Port) -> None:
    assert port(str(printed)) == printed


@pytest.mark.parametrize("text", ["N, *, *", "*, *"])
def test_the_rest_stands_once(text: str) -> None:
    with pytest.raises(ValueError, match="only once"):
        parse_axes(text)


@pytest.mark.parametrize("text", ["N, *", "*"])
def test_sizes_are_stated_for_each_axis(text: str) -> None:
    with pytest.raises(ValueError, match="any number of axes"):
        parse_shape(text)


def test_relations_of_the_rest_are_about_no_dim() -> None:
    where = parse_where("prod(*) == 4 and N<=3")
    assert relations_of(parse_shape("N"), where) == parse_where("N<=3")
