"""Propagating dims down a chain of models."""

from __future__ import annotations

import pytest

from composecli.compose.compare import ConsumerPort, ProducerPort
from composecli.compose.propagate import propagate
from tests.parsing import port, spec


def test_a_chain_is_described_in_the_symbols_of_its_input() -> None:
    given_port, taken = port("float32[N, 64, H//8, W//8]"), port("float32[N, C, H, W]")
    outputs = (port("float32[N, C, ceil(H/2), 2*W + 1]"), port("float32[*]"))
    pair = (ProducerPort("a", given_port, spec("float32[2, 64, 4, 4]")), ConsumerPort("b", taken))
    first, second = propagate(outputs, (pair,))
    assert str(first) == "float32[N, 64, (H + 8)//16, 2*(W//8) + 1]"
    assert second.dims == given_port.dims


def test_an_unknown_size_stays_unknown_down_the_chain() -> None:
    pair = (
        ProducerPort("a", port("float32[N, ?]"), spec("float32[2, 4]")),
        ConsumerPort("b", port("float32[N, D]")),
    )
    (found,) = propagate((port("float32[N, 2*D]"),), (pair,))
    assert str(found) == "float32[N, ?]"


def test_ranges_are_propagated() -> None:
    pair = (
        ProducerPort("a", port("float32[N<=64, 5]"), spec("float32[2, 5]")),
        ConsumerPort("b", port("float32[B, 5]")),
    )
    (found,) = propagate((port("float32[B, 2]"),), (pair,))
    assert str(found) == "float32[N<=64, 2]"


@pytest.mark.parametrize(
    ("output", "propagated"),
    [
        ("float32[N, 7]", "float32[B, 7]"),
        ("float32[N, ?]", "float32[B, ?]"),
        ("float32[N, E]", "float32[B, E]"),
        ("float[*]", "float16[B, 5]"),
        ("int64[*]", "int64[B, 5]"),
    ],
)
def test_one_input_is_followed_to_every_kind_of_output(output: str, propagated: str) -> None:
    pair = (
        ProducerPort("a", port("float16[B, 5]"), spec("float16[2, 5]")),
        ConsumerPort("b", port("float[N, D]")),
    )
    (found,) = propagate((port(output),), (pair,))
    assert str(found) == propagated


def test_an_output_of_any_rank_cannot_be_followed_from_two_inputs() -> None:
    producer = ProducerPort("a", port("float16[B, 5]"), spec("float16[2, 5]"))
    pair = (producer, ConsumerPort("b", port("float[*]")))
    (found,) = propagate((port("float[*]"),), (pair, pair))
    assert str(found) == "float[*]"
