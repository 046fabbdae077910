"""Input sizes are solved for until the operands of the failing op match."""

from __future__ import annotations

import pytest

from composecli.core.observations import Accepted, Observation, Operand, ParameterOp, Rejected
from composecli.core.pytree import Call, call_leaves
from composecli.inference.candidates import Candidate
from composecli.inference.hints import Hints
from composecli.inference.search import FoundCandidate, search
from composecli.inference.size_solver import from_mismatches, mismatches
from tests.parsing import spec
from tests.unit.inference.builders import REJECTED, candidate, facts, rejected


def proposed(tried: Candidate, observation: Rejected) -> list[str]:
    """Return the calls that the solver proposes, in order."""
    paths = [path for path, _ in call_leaves(tried.call)]
    return [str(solved.call) for solved in from_mismatches(tried, observation, paths)]


@pytest.mark.parametrize(
    ("tried", "observation", "wanted"),
    [
        # A flattened feature map of 2704 reaches a layer of 400: both sides shrink together.
        (
            "float32[2, 1, 64, 64]",
            rejected(
                "aten::addmm",
                ("float32[120]", ()),
                ("float32[2, 2704]", (0,)),
                ("float32[400, 120]", ()),
            ),
            "float32[2, 1, 25, 25]",
        ),
        # 17 patches are added to a table of 197 positions.
        (
            "float32[2, 3, 64, 64]",
            rejected("aten::add", ("float32[2, 17, 8]", (0,)), ("float32[1, 197, 8]", ())),
            "float32[2, 3, 218, 218]",
        ),
        # A length is added to one that a trace recorded.
        (
            "int64[2, 8]",
            rejected("aten::add", ("float32[2, 4, 12]", ()), ("float32[2, 4, 8]", (0,))),
            "int64[2, 12]",
        ),
        (
            "float32[2, 8]",
            rejected("aten::view", ("float32[2, 8]", (0,)), numbers=(2, 12)),
            "float32[2, 12]",
        ),
        (
            "float32[2, 8]",
            rejected("aten::expand", ("float32[2, 8]", (0,)), numbers=(2, 5)),
            "float32[2, 5]",
        ),
    ],
)
def test_first_step_makes_the_operand_as_large_as_the_other_side(
    tried: str, observation: Rejected, wanted: str
) -> None:
    assert wanted in proposed(candidate(tried), observation)[:2]


def test_steps_continue_until_the_operands_match() -> None:
    """The size shrinks by two kernels of 5 and two poolings, and is flattened."""

    def features(size: int) -> int:
        return 16 * (((size - 4) // 2 - 4) // 2) ** 2

    def probe(call: Call) -> Observation:
        ((_, image),) = call_leaves(call)
        if len(image.sizes) != 4:
            return REJECTED
        have = features(image.sizes[2])
        if image.sizes[1] == 1 and image.sizes[2] == image.sizes[3] and have == 400:
            return Accepted((image,), "cpu")
        return rejected("aten::addmm", (f"float32[2, {have}]", (0,)), ("float32[400, 120]", ()))

    found = search([], [candidate("float32[2, 1, 64, 64]")], Hints(facts()), probe)
    assert isinstance(found, FoundCandidate)
    ((_, accepted),) = call_leaves(found.candidate.call)
    assert features(accepted.sizes[2]) == 400


def test_channels_of_two_concatenated_inputs_are_shared() -> None:
    parameter_op = ParameterOp(
        "convolution", spec("float32[2, 12, 8, 8]"), "w", spec("float32[4, 6, 3, 3]"), inputs=(0, 1)
    )
    operands = (Operand(spec("float32[2, 12, 8, 8]"), (0, 1)), Operand(spec("float32[4, 6, 3, 3]")))
    observation = Rejected(
        0,
        "E",
        "no",
        "cpu",
        op="aten::convolution",
        ops=2,
        parameter_ops=(parameter_op,),
        operands=operands,
    )
    both = candidate("float32[2, 6, 8, 8]", "float32[2, 6, 8, 8]")
    assert next(iter(mismatches(observation)))[:2] == (12, 6)
    assert "float32[2, 3, 8, 8], float32[2, 3, 8, 8]" in proposed(both, observation)


def test_op_without_operands_from_an_input_proposes_nothing() -> None:
    observation = rejected("aten::addmm", ("float32[2, 3]", ()), ("float32[4, 5]", ()))
    assert proposed(candidate("float32[2, 3]"), observation) == []
