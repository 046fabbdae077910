"""Contract documents are read as they were written, and a mistake has its place."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.contract import Contract, Port
from composecli.core.contract_document import as_document, parse_document
from composecli.core.declared_calls import ContractError, declared_result
from composecli.core.dims import Dim, Fixed, as_dim
from composecli.core.documents import InvalidDocument
from composecli.core.pytree import (
    KeyPath,
    TensorSpec,
    call_leaves,
    leaves,
    parse_port_name,
    port_name,
)
from composecli.core.size_expr import parse_expr
from tests.unit.core.test_dims import frees

DTYPES = ("float32", "bfloat16", "int64", "bool", "float")
STEPS = st.one_of(st.integers(0, 5), st.text(st.characters(exclude_characters='"'), max_size=8))
OUTPUTS = tuple(as_dim(parse_expr(text)) for text in ("N", "2*N + 1", "N//3", "7"))


@given(st.lists(STEPS, max_size=4))
def test_the_name_of_a_port_leads_to_it(steps: list[int | str]) -> None:
    assert parse_port_name(port_name(tuple(steps))) == tuple(steps)


@pytest.mark.parametrize("name", ["x[", ".x", "x..y", "[-1]", "x y", "[0", '["a"', "[1234567]"])
def test_what_is_no_name_of_a_port_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a port"):
        parse_port_name(name)


def entries(dims: list[Dim]) -> dict[str, Any]:
    """Return the keys of a port that every document may have."""
    return {"dtype": "float32", "dims": [str(dim) for dim in dims]}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Return a document with several inputs and outputs."""
    batch = draw(frees())
    inputs = list[dict[str, Any]]()
    for number in range(draw(st.integers(1, 3))):
        others = draw(st.lists(st.integers(1, 9).map(Fixed), max_size=3))
        entry = {**entries([batch, *others]), "name": f"x{number}"}
        entry["dtype"] = draw(st.sampled_from(DTYPES))
        # An argument behind one that is passed by name is passed by name, too.
        if (inputs and "keyword" in inputs[-1]) or draw(st.booleans()):
            entry["keyword"] = True
        if draw(st.booleans()):
            entry["below"] = draw(st.integers(3, 1000))
        inputs.append(entry)
    outputs = list[dict[str, Any]]()
    names = draw(st.sampled_from([(), ("a", "b"), ("[0]", "[1]"), ("deep.x", "deep.y[0]")]))
    for name in names or ("",):
        entry = entries(draw(st.lists(st.sampled_from(OUTPUTS), max_size=3)))
        if name:
            entry["name"] = name
        outputs.append(entry)
    return {"inputs": inputs, "outputs": outputs}


def meaning(contract: Contract) -> object:
    """Return everything but the evidence."""
    return replace(contract, evidence=())


@given(documents())
def test_a_document_is_read_as_it_was_written(document: dict[str, Any]) -> None:
    contract = parse_document(document, "a")
    again = parse_document(as_document(contract), "b")
    assert meaning(again) == meaning(contract)
    assert as_document(again) == as_document(contract)


@given(documents())
def test_a_contract_returns_the_result_of_its_example(document: dict[str, Any]) -> None:
    contract = parse_document(document, "a")
    given_ports = dict(call_leaves(contract.example))
    plain = {path: TensorSpec(spec.dtype, spec.sizes) for path, spec in given_ports.items()}
    result = declared_result(contract, plain)
    assert [spec.sizes for _, spec in leaves(result)] == [
        spec.sizes for _, spec in leaves(contract.result)
    ]


TIED = {
    "inputs": [
        {"name": "a", "dtype": "float32", "dims": ["N", "T<=8", "4"]},
        {"name": "b", "dtype": "int64", "dims": ["N", "2*T"], "optional": False},
        {"name": "c", "dtype": "bool", "dims": ["N"], "optional": True},
    ],
    "outputs": [{"dtype": "float32", "dims": ["N", "T//2", "?"], "example": "2, 4, 5"}],
    "where": ["N*T % 4 == 0"],
}
CALLS: dict[str, tuple[list[tuple[int, ...]], str | tuple[int, ...]]] = {
    "the example": ([(2, 8, 4), (2, 16)], (2, 4, 5)),
    "another": ([(4, 3, 4), (4, 6)], "does not say the size of axis 2"),
    "too long": ([(4, 9, 4), (4, 18)], "a is float32[4, 9, 4], and the contract has"),
    "a width": ([(4, 3, 5), (4, 6)], "a is float32[4, 3, 5], and the contract has"),
    "untied": ([(4, 3, 4), (4, 7)], "axis 1 is 2*T = 6"),
    "another batch": ([(4, 3, 4), (5, 6)], "N is 4 in another place"),
    "a relation": ([(1, 3, 4), (1, 6)], "N*T % 4 == 0 does not hold at N=1, T=3"),
    "a missing input": ([(2, 8, 4)], "b is missing"),
    "a further input": ([(2, 8, 4), (2, 16), (2,), (2,)], "no input for"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_call_is_allowed_or_refused_in_words(case: str) -> None:
    shapes, expected = CALLS[case]
    contract = parse_document(TIED, "tied")
    dtypes = ("float32", "int64", "bool", "bool")
    specs = zip(dtypes, shapes, strict=False)
    given_tensors: dict[KeyPath, TensorSpec] = {}
    for number, (dtype, sizes) in enumerate(specs):
        given_tensors[number,] = TensorSpec(dtype, sizes)
    if isinstance(expected, str):
        with pytest.raises(ContractError) as caught:
            declared_result(contract, given_tensors)
        assert expected in str(caught.value)
        return
    ((_, spec),) = leaves(declared_result(contract, given_tensors))
    assert spec.sizes == expected


def test_the_example_has_its_result_whatever_bounds_its_ids() -> None:
    ids = {"name": "ids", "dtype": "int64", "dims": ["N", "T"], "below": 100, "example": "2, 8"}
    output = {"dtype": "float32", "dims": ["N", "?"], "example": "2, 3"}
    contract = parse_document({"inputs": [ids], "outputs": [output]}, "a.json")
    result = declared_result(contract, {(0,): TensorSpec("int64", (2, 8))})
    assert result == TensorSpec("float32", (2, 3))


def test_an_output_of_any_float_has_the_dtype_of_the_input() -> None:
    port = {"dtype": "float"}
    contract = parse_document({"inputs": [{"name": "x", **port}], "outputs": [port]}, "any")
    assert contract.inputs == (Port("x", (0,), "float", None),)
    ((_, spec),) = leaves(declared_result(contract, {(0,): TensorSpec("float16", (3, 4, 5))}))
    assert (spec.dtype, spec.sizes) == ("float16", (3, 4, 5))


FLAT: dict[str, Any] = {
    "inputs": [{"name": "x", "dtype": "float32", "dims": ["N", "*"]}],
    "outputs": [{"dtype": "float32", "dims": ["N", "3"]}],
    "where": ["prod(*) == 24"],
}


@pytest.mark.parametrize(
    "shape", [(2, 24), (5, 2, 3, 4), (1, 2, 2, 2, 3, 1), (2, 25), (3, 2, 3, 5)]
)
def test_a_contract_of_any_rank_takes_what_its_product_allows(shape: tuple[int, ...]) -> None:
    contract = parse_document(FLAT, "flat")
    assert str(contract) == "float32[N, *] where prod(*) == 24 -> float32[N, 3]"
    given_tensors: dict[KeyPath, TensorSpec] = {(0,): TensorSpec("float32", shape)}
    if math.prod(shape[1:]) == 24:
        ((_, spec),) = leaves(declared_result(contract, given_tensors))
        assert spec.sizes == (shape[0], 3)
    else:
        with pytest.raises(ContractError, match="24"):
            declared_result(contract, given_tensors)


def test_a_document_of_any_rank_is_read_as_it_was_written() -> None:
    at_four = {**FLAT["inputs"][0], "example": "2, 2, 3, 4"}
    for document in (FLAT, {**FLAT, "inputs": [at_four]}):
        contract = parse_document(document, "flat")
        assert meaning(parse_document(as_document(contract), "flat")) == meaning(contract)


PLACES = [
    ({**FLAT, "inputs": [{**FLAT["inputs"][0], "dims": ["*", "*"]}]}, ("inputs", 0, "dims", 1)),
    (
        {**FLAT, "inputs": [FLAT["inputs"][0], {"name": "y", "dtype": "int8", "dims": ["2"]}]},
        ("inputs", 0, "dims"),
    ),
    ({**FLAT, "inputs": [{**FLAT["inputs"][0], "dims": ["N", "3"]}]}, ("where", 0)),
    (
        {
            "inputs": [{"name": "x", "dtype": "int8", "dims": ["2"]}],
            "outputs": [{"dtype": "int8", "dims": ["*"]}],
        },
        ("outputs", 0, "dims"),
    ),
    ({"inputs": [{"name": "x", "dtype": "int8", "dims": [1]}]}, ("inputs", 0, "dims", 0)),
    ({"inputs": [{"name": "x"}]}, ("inputs", 0)),
    ({"inputs": [{"name": "x", "value": [1]}]}, ("inputs", 0, "value")),
    ({"inputs": {}}, ("inputs",)),
    ({"version": 2, "inputs": []}, ("version",)),
    ({"version": True, "inputs": []}, ("version",)),
]


@pytest.mark.parametrize(("document", "place"), PLACES)
def test_a_mistake_has_its_place(document: dict[str, Any], place: tuple[str | int, ...]) -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_document({"outputs": [{"dtype": "int8", "dims": ["2"]}], **document}, "a")
    assert caught.value.place == place


X = {"name": "x", "dtype": "float32", "dims": ["N", "8"]}
Y = {"name": "y", "dtype": "float32"}
ONE = {"dtype": "float32", "dims": ["N"]}
HUGE = str(2**62)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ([{**X, "dims": ["N"] * 3000}], [ONE], "at most 64 axes"),
        ([{**X, "dims": ["N", "*"]}], [{**ONE, "dims": ["N", "*"]}], "a single input alone"),
        ([{**X, "example": "3, 9"}], [ONE], "3, 9 does not meet"),
        ([{**X, "dims": ["N", "H>=7"], "example": "3, 5"}], [ONE], "3, 5 does not meet"),
        ([{**X, "example": "3, 8"}], [{**ONE, "example": "5"}], "5 does not meet"),
        ([X], [{**ONE, "dims": [HUGE, HUGE]}], "more than"),
        ([{**X, "below": 0}], [ONE], "from 1 to"),
        ([{**X, "below": 10**30}], [ONE], "from 1 to"),
        ([{**X, "keyword": True}, Y], [ONE], "y is passed by position behind x"),
        ([X], [{**ONE, "name": "[0]" * 3000}], "at most 64 levels"),
        ([{**X, "name": "a" + ".a" * 3000}], [{**ONE, "dims": ["3"]}], "at most 64 levels"),
        ([X], [{**ONE, "name": "[9999]"}], "hardly any item"),
        ([X], [{**ONE, "dtype": None}], "not null"),
        ([X], [{"dtype": "float32"}], "the dims are missing"),
    ],
)
def test_what_no_tensor_or_call_can_have_is_a_mistake(
    inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InvalidDocument, match=message):
        parse_document({"inputs": inputs, "outputs": outputs}, "a")


def test_an_optional_input_may_be_written_in_front_of_others() -> None:
    optional = {"name": "m", "dtype": "int64", "dims": ["N"], "optional": True}
    needed = {"name": "x", "dtype": "float32", "dims": ["N", "5"]}
    document = {"inputs": [optional, needed], "outputs": [{"dtype": "float32", "dims": ["N"]}]}
    contract = parse_document(document, "a")
    assert [(port.name, port.path) for port in contract.inputs] == [("x", (0,)), ("m", (1,))]
    ((_, spec),) = leaves(declared_result(contract, {(0,): TensorSpec("float32", (3, 5))}))
    assert spec.sizes == (3,)
