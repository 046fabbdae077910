"""A group's dim follows from the sizes that were accepted and rejected."""

from __future__ import annotations

import pytest

from composecli.core.dims import Free, unknown_reason
from composecli.core.observations import Accepted, Rejected, RejectionKind, Untried
from composecli.inference.axis_groups import (
    AxisGroup,
    make_group,
    same_structure,
    try_size,
    with_sizes,
)
from tests.parsing import spec
from tests.unit.inference.builders import REJECTED, accepted, call, example

OUT_OF_MEMORY = Rejected(0, "E", "no", "cpu", kind=RejectionKind.OUT_OF_MEMORY)


def explored(
    base: int, accepted_sizes: list[int], rejected_sizes: list[int], step: int = 1
) -> AxisGroup:
    """Return a group that was tried at these sizes."""
    group = AxisGroup((((0,), 2),), base, "H")
    group.assign_step(step)
    for size in accepted_sizes:
        group.record(size, accepted(f"float32[{size}]"))
    for size in rejected_sizes:
        group.record(size, REJECTED)
    return group


@pytest.mark.parametrize(
    ("base", "accepted_sizes", "rejected_sizes", "step", "dim"),
    [
        (64, [64], [], 1, "64"),
        (64, [64], [63, 65], 1, "64"),
        (64, [1, 2, 64, 65, 256], [], 1, "H"),
        (64, [32, 33, 64, 65], [31], 1, "H>=32"),
        (64, [62, 63, 64, 65], [61, 66], 1, "62<=H<=65"),
        (48, [16, 32, 48, 224], [8, 17, 24], 16, "H%16==0"),
        (48, [16, 32, 48, 224], [8, 17, 24, 240], 16, "H<=224 & H%16==0"),
        # A size without an allowed remainder.
        (48, [16, 31, 32, 48], [], 16, "?"),
        # A hole, an end that is not exact, too few sizes.
        (64, [60, 62, 64], [61], 1, "?"),
        (64, [40, 50, 64], [30], 1, "?"),
        (64, [63, 64], [62], 1, "?"),
        # One frame is broadcast.
        (200, [1, 199, 200], [2, 198, 201], 1, "199<=H<=200"),
    ],
)
def test_dim_is_the_range_that_the_sizes_support(
    base: int, accepted_sizes: list[int], rejected_sizes: list[int], step: int, dim: str
) -> None:
    assert str(explored(base, accepted_sizes, rejected_sizes, step).dim()) == dim


def test_floor_raises_the_lower_bound() -> None:
    group = explored(64, [1, 2, 64, 65], [])
    group.raise_floor(8)
    assert str(group.dim()) == "H>=8"


def test_broadcast_size_of_1_counts_as_rejected() -> None:
    group = explored(4, [1, 3, 4, 5], [2])
    assert str(group.dim()) == "?"
    group.reject_broadcast_one()
    assert str(group.dim()) == "H>=3"


def test_unknown_dim_states_why_and_what_was_tried() -> None:
    group = explored(64, [62, 64], [63])
    assert unknown_reason(group.dim()) == "took 62, 64; refused 63"
    group.record(70, Untried("the budget is spent"))
    assert unknown_reason(group.dim()) == "the budget is spent; took 62, 64; refused 63"
    group.mark_unknown("it is refused at H = 67")
    assert unknown_reason(group.dim()) == "it is refused at H = 67; took 62, 64; refused 63"


def test_lack_of_memory_is_not_a_rejection() -> None:
    group = explored(64, [64], [])
    group.record(128, OUT_OF_MEMORY)
    assert not group.rejected
    assert unknown_reason(group.dim()) == "out of memory at 128"


def test_stated_dim_is_kept_until_a_size_is_rejected() -> None:
    tried = example(call("float32[2, 8]"), lambda call: spec("float32[2, 1]"))
    group = make_group(tried, (((0,), 1),), Free("T", 4))
    assert str(group.dim()) == "T>=4"
    assert group.allows(4)
    assert not group.allows(3)
    group.record(9, REJECTED)
    assert unknown_reason(group.dim()) == "stated as T>=4; took 8; refused 9"


def test_known_size_is_not_probed_again() -> None:
    probed = list[str]()
    tried = call("float32[2, 8]")
    group = make_group(example(tried, lambda call: spec("float32[2, 1]")), (((0,), 1),))

    def probe(resized: object) -> Accepted:
        probed.append(str(resized))
        return accepted("float32[2, 1]")

    assert try_size(tried, group, 8, probe)
    assert try_size(tried, group, 9, probe)
    assert try_size(tried, group, 9, probe)
    assert probed == ["float32[2, 9]"]


def test_output_sizes_are_listed_by_input_size() -> None:
    group = explored(8, [8, 9], [10])
    assert group.output_sizes(0, 0) == {8: 8, 9: 9}


def test_all_axes_of_a_group_are_resized() -> None:
    tried = call("float32[2, 8]", "float32[2, 5]")
    group = make_group(example(tried, lambda call: spec("float32[2]")), (((0,), 0), ((1,), 0)))
    assert str(with_sizes(tried, [(group, 3)])) == "float32[3, 8], float32[3, 5]"


@pytest.mark.parametrize(
    ("other", "same"), [("float32[9, 9]", True), ("float32[2]", False), ("float64[2, 8]", False)]
)
def test_structure_is_dtype_and_rank(other: str, same: bool) -> None:
    assert same_structure((((), spec("float32[2, 8]")),), (((), spec(other)),)) is same
