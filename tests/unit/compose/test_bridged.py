"""Behind a bridge: for which sizes it fits, and whether it rests on the example alone."""

from __future__ import annotations

import pytest

from composecli.compose.bridged import bridged_findings, moves_batch, needs_one_size
from composecli.compose.compare import ConsumerPort, ProducerPort
from composecli.core.bridge import Bridge, Cast, Flatten, Linear, Squeeze
from composecli.core.rules import Rule
from tests.parsing import port, spec


def producer(dims: str, example: str) -> ProducerPort:
    return ProducerPort("a.pt", port(dims), spec(example))


def consumer(dims: str) -> ConsumerPort:
    return ConsumerPort("b.pt", port(dims))


@pytest.mark.parametrize(
    ("output", "example", "bridge", "input_", "needs_one"),
    [
        ("float32[N, T, 16]", "float32[2, 2, 16]", (Flatten(1),), "float32[N, 32]", True),
        ("float32[N, 8, 4]", "float32[2, 8, 4]", (Flatten(1),), "float32[N, 32]", False),
        ("float32[N, T, 16]", "float32[2, 1, 16]", (Squeeze(1),), "float32[N, 16]", True),
        ("float32[N, 1, 16]", "float32[2, 1, 16]", (Squeeze(1),), "float32[N, 16]", False),
        ("float32[N, T]", "float32[2, 8]", (Linear(1, 8, 3),), "float32[N, 3]", True),
        ("float32[N, T, 8]", "float32[2, 4, 8]", (Linear(2, 8, 3),), "float32[N, T, 3]", False),
        ("float32[N, ?]", "float32[2, 8]", (Linear(1, 8, 3),), "float32[N, 3]", True),
        ("float64[N, H]", "float64[2, 8]", (Cast("float32"),), "float32[N, H>=8]", False),
    ],
)
def test_a_bridge_that_fits_one_size_of_a_free_axis_is_recognized(
    output: str, example: str, bridge: Bridge, input_: str, needs_one: bool
) -> None:
    assert needs_one_size(producer(output, example), bridge, consumer(input_)) is needs_one


def test_a_batch_that_is_merged_is_moved() -> None:
    assert moves_batch(producer("float32[2, N, 24]", "float32[2, 3, 24]"), (Flatten(1),))
    assert not moves_batch(producer("float32[N, 8, 24]", "float32[2, 8, 24]"), (Flatten(1),))
    assert not moves_batch(producer("float32[N, 8]", "float32[2, 8]"), (Linear(1, 8, 3),))


@pytest.mark.parametrize(
    ("strict", "rule", "title"),
    [
        (False, Rule.FITS_ONLY_AT_SOME_SIZES, "with the bridge: compatible when H>=8"),
        (True, Rule.NOT_AT_EVERY_SIZE, "with the bridge: fits only when H>=8"),
    ],
)
def test_the_sizes_for_which_a_bridge_holds_are_stated(
    strict: bool, rule: Rule, title: str
) -> None:
    left = producer("float64[N, 3, H]", "float64[2, 3, 8]")
    right = consumer("float32[N, 3, H>=8]")
    (finding,) = bridged_findings(left, (Cast("float32"),), right, strict=strict)
    assert (finding.rule, finding.title) == (rule, title)
    assert finding.sides[0].text == "float32[N, 3, H]"


def test_a_bridge_that_holds_at_every_size_needs_no_finding() -> None:
    left = producer("float64[N, T]", "float64[2, 3]")
    bridge = (Cast("float32"),)
    assert bridged_findings(left, bridge, consumer("float32[N, D]"), strict=True) == ()


@pytest.mark.parametrize(
    ("bridge", "input_"),
    [
        ((Flatten(1),), "float32[N, 32]"),
        ((Squeeze(1),), "float32[N, 16]"),
        ((Linear(2, 16, 4), Flatten(1)), "float32[N, 8]"),
    ],
)
def test_a_bridge_over_an_unknown_size_is_not_strict(bridge: Bridge, input_: str) -> None:
    left = producer("float32[N, ?, ?]", "float32[2, 1, 16]")
    (finding,) = bridged_findings(left, bridge, consumer(input_), strict=True)
    assert finding.rule is Rule.SIZES_NOT_KNOWN
    assert bridged_findings(left, bridge, consumer(input_), strict=False) == ()
