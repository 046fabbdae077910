"""Wiring: which part of a result goes to which argument, and what is said where none does."""

from __future__ import annotations

import pytest

from composecli.compose.wiring import Edge, Wiring, wire
from composecli.core.facts import ArgumentFact
from composecli.core.findings import Finding
from composecli.core.pytree import TensorSpec, Tree, TreeMapping, TreeSequence, get_path, select

A, B = TensorSpec("float32", (2, 5)), TensorSpec("float32", (2, 7))
ENDS = Edge("a.pt", "b.pt")
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
    ],
)
def test_what_is_wired(
    result: Tree, arguments: tuple[ArgumentFact, ...], paths: list[object]
) -> None:
    wired = wire(result, arguments, (), ENDS)
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
    ],
)
def test_what_cannot_be_wired(result: Tree, arguments: tuple[ArgumentFact, ...], code: str) -> None:
    found = wire(result, arguments, (), ENDS)
    assert isinstance(found, Finding)
    assert found.code == code


@pytest.mark.parametrize(
    ("tree", "port", "path"),
    [
        (DICT, "logits", ("logits",)),
        (DICT, 'out["logits"]', ("logits",)),
        (DICT, "['logits']", ("logits",)),
        (DICT, "hidden.0", ("hidden", 0)),
        (DICT, '["hidden"][1]', ("hidden", 1)),
        (TUPLE, "[1]", (1,)),
        (TUPLE, "1", (1,)),
        (TreeSequence("tuple", (A, B), ("mean", "scale")), "scale", (1,)),
    ],
)
def test_a_port_is_selected(tree: Tree, port: str, path: tuple[int | str, ...]) -> None:
    assert select(tree, port) == path
    assert get_path(tree, path) is not None


@pytest.mark.parametrize("port", ["nothing", "[9]", "hidden.7", ""])
def test_a_port_that_is_not_there_is_refused(port: str) -> None:
    if port:
        with pytest.raises(KeyError):
            select(DICT, port)
    with pytest.raises(KeyError):
        get_path(DICT, ("nothing",))


def test_a_selected_output_is_wired_alone() -> None:
    wired = wire(DICT, facts("x"), ("logits",), ENDS)
    assert isinstance(wired, Wiring)
    assert wired.feeds[0].path == ("logits",)
