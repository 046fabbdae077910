"""Bridge steps: their text, their parameters and their JSON form."""

from __future__ import annotations

import pytest

from composecli.core.bridge import (
    Cast,
    Flatten,
    Linear,
    Squeeze,
    Step,
    as_data,
    describe,
    parameter_count,
)


def test_an_untrained_layer_is_called_untrained_with_its_count() -> None:
    assert (
        describe(Linear(1, 512, 768))
        == "Linear(512 -> 768) along axis 1, 393,984 parameters, untrained"
    )


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Cast("float32"), "cast to float32"),
        (Flatten(1), "flatten from axis 1"),
        (Squeeze(2), "squeeze axis 2"),
    ],
)
def test_a_step_without_parameters_has_none_and_says_what_it_does(step: Step, text: str) -> None:
    assert describe(step) == text
    assert parameter_count(step) == 0


def test_the_json_of_a_step_starts_with_its_type() -> None:
    assert as_data(Linear(1, 5, 3)) == {
        "type": "Linear",
        "axis": 1,
        "before": 5,
        "after": 3,
        "dtype": "float32",
    }
    assert as_data(Squeeze(2)) == {"type": "Squeeze", "axis": 2}
