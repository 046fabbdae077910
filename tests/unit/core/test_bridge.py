"""Bridge steps: their text, parameters, JSON form, and the tensors and dims they leave."""

from __future__ import annotations

import pytest
from hypothesis import given

from composecli.core.bridge import (
    STEP_KINDS,
    Cast,
    Flatten,
    Linear,
    Squeeze,
    Step,
    apply_all,
    can_cast,
    carry_all,
)
from composecli.core.contract import Port
from composecli.core.dims import Fixed
from composecli.core.pytree import TensorSpec
from tests.parsing import port, spec
from tests.strategies import PORTS, SPECS


def test_an_untrained_layer_is_called_untrained_with_its_count() -> None:
    assert (
        str(Linear(1, 512, 768)) == "Linear(512 -> 768) along axis 1, 393,984 parameters, untrained"
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
    assert str(step) == text
    assert step.parameter_count == 0


def test_the_json_of_a_step_starts_with_its_type() -> None:
    assert Linear(1, 5, 3).as_data() == {
        "type": "Linear",
        "axis": 1,
        "before": 5,
        "after": 3,
        "dtype": "float32",
    }
    assert Squeeze(2).as_data() == {"type": "Squeeze", "axis": 2}


@pytest.mark.parametrize(
    "step", [Flatten(3), Squeeze(1), Squeeze(4), Linear(1, 4, 2), Linear(1, 3, 2, "float64")]
)
def test_a_step_rejects_a_tensor_that_it_does_not_accept(
    step: Flatten | Squeeze | Linear,
) -> None:
    with pytest.raises(ValueError, match=r"axis|take"):
        step.apply(spec("float32[2, 3]"))


def test_floats_are_never_cast_to_ids() -> None:
    assert not any(can_cast(found, "int64") for found in ("float32", "float64", "float16"))
    assert can_cast("int32", "int64")
    assert not can_cast("int64", "int32")
    assert not can_cast("int64", "bool")


def test_an_integer_is_cast_to_one_that_has_all_its_values() -> None:
    assert can_cast("uint8", "int16")
    assert can_cast("bool", "uint8")
    assert not can_cast("uint8", "int8")


@given(SPECS, PORTS)
def test_the_dims_after_a_step_have_the_sizes_that_it_leaves(
    found: TensorSpec, wanted: Port
) -> None:
    dims = tuple(Fixed(size) for size in found.sizes)
    for kind in STEP_KINDS:
        for bridge in kind.toward(found, wanted):
            left = apply_all(bridge, found)
            assert carry_all(bridge, dims) == tuple(Fixed(size) for size in left.sizes)


@pytest.mark.parametrize(
    ("bridge", "dims", "left"),
    [
        ((Cast("float32"),), "int64[N, T]", "int64[N, T]"),
        ((Flatten(1),), "float32[N, 64, H, H//2]", "float32[N, 64*H*(H//2)]"),
        ((Flatten(1),), "float32[N, 64, ?]", "float32[N, ?]"),
        ((Squeeze(2), Squeeze(1)), "float32[N, 1, 1, W]", "float32[N, W]"),
        ((Linear(1, 5, 3),), "float32[N, 5, T]", "float32[N, 3, T]"),
    ],
    ids=str,
)
def test_symbols_pass_through_a_bridge(bridge: tuple[Step, ...], dims: str, left: str) -> None:
    carried = carry_all(bridge, port(dims).dims or ())
    assert tuple(map(str, carried)) == tuple(map(str, port(left).dims or ()))
