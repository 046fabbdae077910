"""Wiring: the part of a result that goes to each argument, and the finding if there is none."""

from __future__ import annotations

import pytest

from composecli.compose.wiring import Edge, Wiring, wire
from composecli.core.facts import ArgumentFact
from composecli.core.findings import Finding
from composecli.core.pytree import Literal, TensorSpec, Tree, TreeMapping, TreeSequence

A, B = TensorSpec("float32", (2, 5)), TensorSpec("float32", (2, 7))
EDGE = Edge("a.pt", "b.pt")
TUPLE, LIST = TreeSequence("tuple", (A, B)), TreeSequence("list", (A, B))
DICT = TreeMapping((("logits", A), ("hidden", TreeSequence("tuple", (B, A)))))


def facts(*names: str, type_name: str = "Tensor") -> tuple[ArgumentFact, ...]:
    return tuple(ArgumentFact(name, type_name, required=True) for name in names)


@pytest.mark.parametrize(
    ("result", "arguments", "paths"),
    [
        (A, facts("x"), [()]),
        (A, (), [()]),
        (A, (*facts("x"), ArgumentFact("mask", "Optional[Tensor]", required=False)), [()]),
        (TUPLE, facts("x", "y"), [(0,), (1,)]),
        (LIST, facts("x", "y"), [(0,), (1,)]),
        (LIST, facts("xs", type_name="List[Tensor]"), [()]),
        (TreeMapping((("y", A), ("x", B))), facts("x", "y"), [("x",), ("y",)]),
        (TUPLE, facts("xs", type_name="typing.Tuple[Tensor, Tensor]"), [()]),
    ],
)
def test_a_result_is_wired_to_the_arguments(
    result: Tree, arguments: tuple[ArgumentFact, ...], paths: list[object]
) -> None:
    wired = wire(result, arguments, (), EDGE)
    assert isinstance(wired, Wiring)
    assert [feed.path for feed in wired.feeds] == paths


@pytest.mark.parametrize(
    ("result", "arguments", "code"),
    [
        (A, facts("x", "y"), "CC101"),
        (TUPLE, facts("x", "y", "z"), "CC101"),
        (TUPLE, facts("x"), "CC102"),
        (DICT, facts("x"), "CC102"),
        (DICT, facts("x", "y"), "CC102"),
        (A, facts("xs", type_name="List[Tensor]"), "CC102"),
        (A, facts("xs", type_name="Dict[str, Tensor]"), "CC102"),
        (LIST, facts("xs", type_name="Dict[str, Tensor]"), "CC102"),
        (TUPLE, (), "CC102"),
        (Literal(3), facts("x"), "CC102"),
    ],
)
def test_a_result_that_cannot_be_wired_is_a_finding(
    result: Tree, arguments: tuple[ArgumentFact, ...], code: str
) -> None:
    found = wire(result, arguments, (), EDGE)
    assert isinstance(found, Finding)
    assert found.code == code


def test_a_selected_output_is_wired_alone() -> None:
    wired = wire(DICT, facts("x"), ("logits",), EDGE)
    assert isinstance(wired, Wiring)
    assert wired.feeds[0].path == ("logits",)


def test_the_finding_lists_the_outputs_to_select_from() -> None:
    found = wire(DICT, facts("x"), (), EDGE)
    assert isinstance(found, Finding)
    assert found.title == "a.pt returns a dict with logits, hidden where a tensor is expected"
    assert found.notes == ("outputs to select from: logits, hidden[0], hidden[1]",)


def test_the_outputs_inside_a_selected_container_have_their_whole_names() -> None:
    found = wire(DICT, facts("x"), ("hidden",), EDGE)
    assert isinstance(found, Finding)
    assert found.notes == ("outputs to select from: hidden[0], hidden[1]",)
