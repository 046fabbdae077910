"""Merging: the findings of two outputs, and the ports that narrower outputs have to match."""

from __future__ import annotations

import pytest

from composecli.compose.merge import (
    BranchOutput,
    MergeSpec,
    merge_findings,
    merged_blueprint,
    outputs_in_symbols_of,
    widened_ports,
)
from composecli.core.blueprint import Branch, Merge, Parallel
from composecli.core.bridge import Cast
from composecli.core.contract import Contract, Port
from composecli.core.findings import Side
from composecli.core.pytree import Argument, Call, Tree, TreeMapping, TreeSequence
from tests.parsing import port, spec

DICT = TreeMapping((("logits", spec("float32[2, 5]")), ("features", spec("float32[2, 16]"))))


def output(tree: Tree | str, text: str | None = None, handle: int = 0) -> BranchOutput:
    """The output of one branch: an example, and its port if there is one."""
    if isinstance(tree, str):
        tree = spec(tree)
    known = None if text is None else port(text, "output 0")
    return BranchOutput(f"{handle}.pt", handle, (), tree, known)


@pytest.mark.parametrize(
    ("merge", "dim", "one", "other", "codes"),
    [
        (Merge.CAT, 1, "float32[2, 5]", "float32[2, 7]", []),
        (Merge.CAT, -1, "float32[2, 5]", "float32[2, 7]", []),
        (Merge.CAT, 0, "float32[2, 5]", "float32[2, 7]", ["CC402"]),
        (Merge.CAT, 0, "float32[2, 5]", "float32[3, 5]", []),
        (Merge.CAT, 2, "float32[2, 5]", "float32[2, 5]", ["CC403"]),
        (Merge.CAT, -3, "float32[2, 5]", "float32[2, 5]", ["CC403"]),
        (Merge.STACK, 1, "float32[2, 5]", "float32[2, 7]", ["CC402"]),
        (Merge.STACK, 2, "float32[2, 5]", "float32[2, 5]", []),
        (Merge.STACK, 3, "float32[2, 5]", "float32[2, 5]", ["CC403"]),
        (Merge.ADD, 1, "float32[2, 5]", "float32[2, 7]", ["CC402"]),
        (Merge.ADD, 1, "float32[2, 5]", "float32[3, 7]", ["CC402", "CC402"]),
        (Merge.ADD, 9, "float32[2, 5]", "float32[2, 5]", []),
        (Merge.MEAN, 1, "float32[2, 5]", "float64[2, 5]", ["CC404"]),
        (Merge.MEAN, 1, "float32[2, 5]", "float64[2, 7]", ["CC404", "CC402"]),
        (Merge.ADD, 1, "float32[2, 5]", "float32[2, 5, 1]", ["CC402"]),
        (Merge.TUPLE, 1, "float32[2, 5]", "int64[7]", []),
    ],
)
def test_two_tensors_merge_if_their_sizes_allow_it(
    merge: Merge, dim: int, one: str, other: str, codes: list[str]
) -> None:
    findings = merge_findings(output(one), output(other), MergeSpec(merge, dim))
    assert [finding.code for finding in findings] == codes


def test_a_size_that_differs_is_marked_with_the_way_out() -> None:
    one, other = output("float32[2, 5]", "float32[N, 5]"), output("float32[2, 7]", handle=1)
    (finding,) = merge_findings(one, other, MergeSpec(Merge.ADD))
    assert finding.title == "axis 1 differs: 5 and 7, and add needs them equal"
    assert finding.axis == 1
    assert [side.text for side in finding.sides] == ["float32[N, 5]", "float32[2, 7]"]
    assert finding.notes == ("--merge cat --dim 1 does not need equal sizes there",)


@pytest.mark.parametrize("merge", [merge for merge in Merge if merge is not Merge.TUPLE])
def test_only_tensors_are_merged(merge: Merge) -> None:
    for pair in ((output(DICT), output("float32[2, 5]")), (output("float32[2, 5]"), output(DICT))):
        (finding,) = merge_findings(*pair, MergeSpec(merge))
        assert finding.code == "CC405"
        assert finding.notes == ("outputs to select from: logits, features",)


def test_a_tuple_holds_anything() -> None:
    assert merge_findings(output(DICT), output("float32[2]"), MergeSpec(Merge.TUPLE)) == ()


@pytest.mark.parametrize(
    ("one", "other", "title"),
    [
        ("float32[N, H//2]", "float32[N, W]", "compatible when H//2 == W"),
        ("float32[N, 8]", "float32[N, W>=4]", "compatible when W==8"),
        ("float32[N, W]", "float32[N, W]", None),
        ("float32[N, ?]", "float32[N, W]", None),
        ("float32[*]", "float32[N, W]", None),
    ],
)
def test_equal_sizes_may_be_a_coincidence(one: str, other: str, title: str | None) -> None:
    pair = (output("float32[2, 8]", one), output("float32[2, 8]", other))
    findings = merge_findings(*pair, MergeSpec(Merge.ADD))
    strict = merge_findings(*pair, MergeSpec(Merge.ADD, strict=True))
    if title is None:
        assert findings == strict == ()
    else:
        assert [(finding.code, finding.title) for finding in findings] == [("CC205", title)]
        title = title.replace("compatible when", "fits only when")
        assert [(finding.code, finding.title) for finding in strict] == [("CC206", title)]


def test_the_axis_of_cat_may_have_any_size() -> None:
    pair = (output("float32[2, 8]", "float32[N, H]"), output("float32[2, 8]", "float32[N, W]"))
    assert merge_findings(*pair, MergeSpec(Merge.CAT, 1)) == ()


@pytest.mark.parametrize(
    ("tree", "text", "side"),
    [
        (spec("float32[2, 5]"), "float32[N, 5]", "float32[N, 5]"),
        (spec("float32[2, 5]"), "float32[*]", "float32[2, 5]"),
        (spec("float32[2, 5]"), None, "float32[2, 5]"),
        (DICT, None, ""),
    ],
)
def test_a_side_shows_the_port_or_else_the_example(tree: Tree, text: str | None, side: str) -> None:
    assert output(tree, text).side.text == side
    assert output(DICT).side == Side("0.pt", "a dict with logits, features")


@pytest.mark.parametrize(
    ("merge", "dim", "outputs", "ports"),
    [
        (Merge.ADD, 1, ["float32[2, 5]", "float32[2, 7]"], {0: "float32[2, 7]"}),
        (Merge.ADD, 1, ["float16[2, 5]", "float32[2, 7]"], {0: "float32[2, 7]"}),
        (
            Merge.MEAN,
            1,
            ["float32[2, 5]", "float32[2, 7]", "float32[2, 3]"],
            {0: "float32[2, 7]", 2: "float32[2, 7]"},
        ),
        (Merge.STACK, 1, ["float32[2, 5, 3]", "float32[2, 5, 2]"], {1: "float32[2, 5, 3]"}),
        # The batch has to be equal, and no layer works along it.
        (Merge.ADD, 1, ["float32[2, 5]", "float32[3, 5]"], {}),
        (Merge.ADD, 1, ["float32[2, 5]", "float32[3, 7]"], {}),
        (Merge.ADD, 1, ["float32[2, 5]", "float32[2, 5]"], {}),
        (Merge.ADD, 1, ["float32[2, 5]", "float32[2, 5, 7]"], {}),
        # Along the axis of cat the sizes may differ; on another one they may not.
        (Merge.CAT, 1, ["float32[2, 5]", "float32[2, 7]"], {}),
        (Merge.CAT, 1, ["float32[2, 5, 3]", "float32[2, 7, 4]"], {0: "float32[2, 5, 4]"}),
        (Merge.TUPLE, 1, ["float32[2, 5]", "float32[2, 7]"], {}),
    ],
)
def test_a_narrower_output_has_to_match_the_widest(
    merge: Merge, dim: int, outputs: list[str], ports: dict[int, str]
) -> None:
    numbered = {number: output(text) for number, text in enumerate(outputs)}
    widened = widened_ports(numbered, MergeSpec(merge, dim))
    assert {number: str(port) for number, port in widened.items()} == ports


def test_nothing_is_widened_if_an_output_is_not_a_tensor() -> None:
    outputs = {0: output("float32[2, 5]"), 1: output("float32[2, 7]"), 2: output(DICT)}
    assert widened_ports(outputs, MergeSpec(Merge.ADD)) == {}


def contract(inputs: str, outputs: str, example: str) -> Contract:
    """The contract of a model with one input and one output."""
    given = Port("x", (0,), port(inputs).dtype, port(inputs).dims)
    call = Call((Argument(spec(example)),))
    return Contract((given,), (port(outputs),), call, spec(example), ())


def test_outputs_are_in_the_symbols_of_the_first_model() -> None:
    first = contract("float32[N, 10]", "float32[N, 5]", "float32[2, 10]")
    relu = contract("float32[B, D]", "float32[B, D]", "float32[2, 10]")
    (shown,) = outputs_in_symbols_of(first, relu, first.example)
    assert str(shown) == "float32[N, 10]"
    assert outputs_in_symbols_of(None, relu, first.example) == relu.outputs
    assert outputs_in_symbols_of(relu, relu, first.example) == relu.outputs


def test_the_blueprint_merges_every_output_through_its_bridge() -> None:
    pair = TreeSequence("tuple", (spec("float32[2, 5]"),))
    selected = BranchOutput("a.pt", 4, (0,), pair, None)
    outputs = {0: selected, 1: output("float32[2, 7]", handle=9)}
    bridge = (Cast("float32"),)
    blueprint = merged_blueprint(outputs, {1: bridge}, MergeSpec(Merge.STACK, 2))
    assert blueprint == Parallel((Branch(4, (0,)), Branch(9, (), bridge)), Merge.STACK, 2)
