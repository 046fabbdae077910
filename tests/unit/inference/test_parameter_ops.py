"""The shape of a weight implies an input, for each op family."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.facts import LayerFact, NamedSizes
from composecli.core.observations import Operand, ParameterOp
from composecli.inference.parameter_ops import (
    ELEMENTWISE,
    fixed_axes,
    fixed_recurrent_axes,
    ids_below,
    implied_input,
    input_channels,
    layer_inputs,
    op_family,
    recurrent_widths,
)
from tests.parsing import spec
from tests.unit.inference.builders import call, facts, layer, rejected


@pytest.mark.parametrize(
    ("class_name", "weight", "expected"),
    [
        ("Linear", (5, 10), ["float32[2, 10]"]),
        ("Bilinear", (3, 4, 6), ["float32[2, 4]", "float32[2, 6]"]),
        ("Embedding", (50, 8), ["int64[2, 8]"]),
        ("Conv1d", (8, 4, 3), ["float32[2, 4, 64]"]),
        ("Conv2d", (8, 3, 3, 3), ["float32[2, 3, 64, 64]"]),
        ("ConvTranspose2d", (8, 3, 3, 3), ["float32[2, 8, 64, 64]"]),
        ("LayerNorm", (4, 6), ["float32[2, 4, 6]"]),
        ("BatchNorm1d", (6,), ["float32[2, 6]", "float32[2, 6, 8]"]),
        ("InstanceNorm2d", (6,), ["float32[2, 6, 8, 8]"]),
        ("GroupNorm", (6,), ["float32[2, 6, 8]"]),
        ("PReLU", (5,), ["float32[2, 5]"]),
        ("PReLU", (1,), []),
    ],
)
def test_layer_expects_the_input_that_its_weight_implies(
    class_name: str, weight: tuple[int, ...], expected: list[str]
) -> None:
    assert list(map(str, layer_inputs(layer(class_name, weight)))) == expected


def test_recurrent_layer_expects_a_sequence_and_a_row_of_state_for_each_of_its_layers() -> None:
    names = {"weight_ih_l0": 10, "weight_hh_l0": 3, "weight_ih_l1": 3, "weight_hh_l1": 3}
    weights = tuple(NamedSizes(name, "float32", (12, width)) for name, width in names.items())
    inputs = list(map(str, layer_inputs(LayerFact("rnn", "LSTM", weights))))
    assert inputs == ["float32[8, 2, 10]", "float32[2, 2, 3]"]


def test_attention_expects_the_width_of_its_joint_projection() -> None:
    attention = layer("MultiheadAttention", (48, 16), name="in_proj_weight")
    assert list(map(str, layer_inputs(attention))) == ["float32[8, 2, 16]"]


def test_layer_without_parameters_expects_nothing() -> None:
    assert list(layer_inputs(LayerFact("relu", "ReLU", ()))) == []


@pytest.mark.parametrize(
    ("weight", "groups", "transposed", "channels"),
    [
        ((8, 3, 5, 5), 1, False, 3),
        ((8, 3, 5, 5), 2, False, 6),
        ((8, 3, 5, 5), 2, True, 8),
        ((16, 1, 3), 16, False, 16),
    ],
)
def test_channels_of_grouped_and_transposed_convolutions(
    weight: tuple[int, ...], groups: int, transposed: bool, channels: int
) -> None:
    assert input_channels(weight, groups, transposed=transposed) == channels
    class_name = "ConvTranspose2d" if transposed else "Conv2d"
    grouped = replace(layer(class_name, weight), constants=(("groups", groups),))
    assert next(layer_inputs(grouped)).sizes[1] == channels


@pytest.mark.parametrize(
    ("op", "tried", "weight", "implied", "axes"),
    [
        ("addmm", "float32[2, 8]", "float32[10, 5]", "float32[2, 10]", (1,)),
        ("linear", "float64[2, 4, 8]", "float32[10, 5]", "float32[2, 4, 10]", (2,)),
        ("convolution", "float32[2, 1, 9, 9]", "float32[4, 3, 3, 3]", "float32[2, 3, 9, 9]", (1,)),
        ("convolution", "float32[2, 8]", "float32[4, 3, 3, 3]", "float32[2, 3, 64, 64]", (1,)),
        ("native_layer_norm", "float32[2, 7, 5]", "float32[4, 6]", "float32[2, 4, 6]", (1, 2)),
        ("native_group_norm", "float32[2, 7, 5]", "float32[6]", "float32[2, 6, 5]", (1,)),
        ("embedding", "int32[2, 7]", "float32[50, 8]", "int32[2, 7]", ()),
    ],
)
def test_op_implies_an_input_and_the_axes_that_it_fixes(
    op: str, tried: str, weight: str, implied: str, axes: tuple[int, ...]
) -> None:
    parameter_op = ParameterOp(op, spec(tried), "weight", spec(weight))
    found = implied_input(spec(tried), parameter_op)
    assert found is not None
    assert (str(found.spec), found.axes) == (implied, axes)


@pytest.mark.parametrize(
    ("op", "value", "weight"),
    [
        ("addmm", "float32[2, 9]", "float32[10, 5]"),
        ("convolution", "float32[2, 1, 4, 4]", "float32[4, 3, 3, 3]"),
        ("embedding", "int64[16]", "float32[50, 8]"),
        ("native_layer_norm", "float32[2, 8]", "float32[1, 2, 8]"),
        ("relu", "float32[2, 8]", "float32[8]"),
    ],
)
def test_op_that_the_input_did_not_reach_unchanged_implies_nothing(
    op: str, value: str, weight: str
) -> None:
    parameter_op = ParameterOp(op, spec(value), "weight", spec(weight))
    assert implied_input(spec("float32[2, 8]"), parameter_op) is None


def test_axes_of_an_accepted_call_are_fixed_by_the_weights_that_it_matches() -> None:
    matching = ParameterOp("addmm", spec("float32[2, 8]"), "a", spec("float32[8, 5]"))
    other = ParameterOp("addmm", spec("float32[2, 8]"), "b", spec("float32[9, 5]"))
    tried = call("float32[2, 8]")
    assert fixed_axes(tried, (matching,)) == (((0,), 1),)
    assert fixed_axes(tried, (other,)) == ()


def test_widths_are_those_of_the_sequences_that_reach_recurrent_layers() -> None:
    recurrent = ParameterOp(
        "gru", spec("float32[8, 2, 10]"), "0.weight_ih_l0", spec("float32[12, 10]")
    )
    other = ParameterOp("addmm", spec("float32[2, 7]"), "1.weight", spec("float32[7, 3]"))
    assert recurrent_widths((recurrent, other)) == {10}


def test_recurrent_first_layer_fixes_the_last_axis_of_its_width() -> None:
    recurrent = facts(layer("LSTM", (12, 10), name="weight_ih_l0"))
    assert fixed_recurrent_axes(call("float32[8, 2, 10]"), recurrent) == (((0,), 2),)
    assert fixed_recurrent_axes(call("float32[8, 2, 11]"), recurrent) == ()
    assert fixed_recurrent_axes(call("float32[2, 5, 2, 10]"), recurrent) == ()
    assert fixed_recurrent_axes(call("float32[2, 10]"), facts(layer("Linear", (5, 10)))) == ()


def test_vocabulary_is_that_of_the_table_the_input_indexes_directly() -> None:
    ids = spec("int64[2, 8]")
    words = ParameterOp("embedding", ids, "words", spec("float32[50, 8]"), inputs=(0,))
    flat = ParameterOp("embedding", spec("int64[16]"), "flat", spec("float32[9, 8]"), inputs=(0,))
    assert ids_below(0, ids, (flat, words)) == 50
    assert ids_below(0, ids, (flat,)) == 9
    assert ids_below(1, ids, (flat, words)) is None


def test_size_of_1_grows_to_the_parameter_it_is_added_to() -> None:
    tried = spec("float32[1, 1, 8]")
    table = ParameterOp("add", tried, "positions", spec("float32[16, 8]"))
    assert ELEMENTWISE.unbroadcast_sizes(tried, table) == (1, 16, 8)
    assert ELEMENTWISE.unbroadcast_sizes(tried, replace(table, op="addmm")) is None
    full = spec("float32[2, 16, 8]")
    assert ELEMENTWISE.unbroadcast_sizes(full, replace(table, value=full)) is None


@pytest.mark.parametrize(
    ("op", "operands", "numbers", "expected"),
    [
        (
            "addmm",
            [("float32[5]", ()), ("float32[2, 8]", (0,)), ("float32[10, 5]", ())],
            (),
            [(8, 10)],
        ),
        ("addmm", [("float32[2, 10]", (0,)), ("float32[10, 5]", ())], (), []),
        ("native_layer_norm", [("float32[2, 8]", (0,))], (12,), [(8, 12)]),
        ("add", [("float32[2, 8]", (0,)), ("float32[1, 9]", ())], (), [(8, 9)]),
        ("convolution", [("float32[2, 3, 8, 8]", (0,)), ("float32[4, 3, 3, 3]", ())], (), []),
    ],
)
def test_mismatches_are_those_of_the_op_family(
    op: str,
    operands: list[tuple[str, tuple[int, ...]]],
    numbers: tuple[int, ...],
    expected: list[tuple[int, int]],
) -> None:
    observation = rejected(f"aten::{op}", *operands, numbers=numbers)
    found = op_family(op).mismatches(observation)
    assert [(mismatch.have, mismatch.want) for mismatch in found] == expected


def test_grouped_convolution_expects_the_channels_of_all_groups() -> None:
    value, weight = spec("float32[2, 4, 8, 8]"), spec("float32[8, 3, 3, 3]")
    grouped = ParameterOp("convolution", value, "weight", weight, groups=2, inputs=(0,))
    observation = replace(
        rejected("aten::convolution"),
        operands=(Operand(value, (0,)), Operand(weight)),
        parameter_ops=(grouped,),
    )
    (mismatch,) = op_family("convolution").mismatches(observation)
    assert (mismatch.have, mismatch.want) == (4, 6)


@pytest.mark.parametrize(
    ("weight", "sizes"),
    [
        ("1, 8, 1, 1", (2, 8, 8, 8)),
        ("8, 1, 1", (2, 8, 8, 8)),
        ("8, 1", None),
        ("1, 8, 1", (2, 8, 8)),
        ("8", None),
        ("1, 1, 1", None),
        ("4, 1, 8", None),
        ("4, 8, 1", None),
    ],
)
def test_a_parameter_of_channels_says_how_many_axes_an_input_has(
    weight: str, sizes: tuple[int, ...] | None
) -> None:
    tried = spec("float32[2, 8]")
    scale = ParameterOp("mul", tried, "scale", spec(f"float32[{weight}]"))
    assert ELEMENTWISE.sizes_by_channels(tried, scale) == sizes
    assert ELEMENTWISE.sizes_by_channels(tried, replace(scale, op="addmm")) is None
