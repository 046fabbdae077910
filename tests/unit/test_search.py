"""The search: what each kind of refusal suggests next, and the order in which suggestions are tried."""

from __future__ import annotations

import pytest

from composecli.core.facts import ArgumentFact, LayerFact, ModelFacts, NamedSizes, Setting
from composecli.core.observations import (
    Accepted,
    Observation,
    Operand,
    ParameterOp,
    Rejected,
    Untried,
)
from composecli.core.pytree import Argument, Call, TensorSpec, call_leaves
from composecli.inference.candidates import Candidate, initial_candidates
from composecli.inference.repairs import find_repairs
from composecli.inference.search import MOST_PROPOSALS, FoundCandidate, search
from composecli.inference.size_solver import mismatches
from tests.reading import spec

FACTS = ModelFacts(
    "M", (ArgumentFact("x", "Tensor", required=True),), "eval", (), 0, 0, 0, ("float32",), (), ()
)


def candidate(*texts: str) -> Candidate:
    return Candidate(Call(tuple(Argument(spec(text)) for text in texts)))


def refused(
    op: str | None, *operands: tuple[str, tuple[int, ...]], numbers: tuple[int, ...] = ()
) -> Rejected:
    found = tuple(Operand(spec(text), inputs) for text, inputs in operands)
    return Rejected(0, "RuntimeError", "no", "cpu", op=op, operands=found, numbers=numbers, ops=3)


def suggested(tried: Candidate, seen: Rejected, facts: ModelFacts = FACTS) -> list[str]:
    """The calls of the surest corrections, in order."""
    found = sorted(
        enumerate(find_repairs(tried, seen, facts)), key=lambda item: (item[1][0], item[0])
    )
    return [str(better.call) for _, (_, better) in found]


@pytest.mark.parametrize(
    ("tried", "seen", "wanted"),
    [
        # A flattened feature map of 2704 meets a layer of 400: both sides of the image shrink together.
        ("float32[2, 1, 64, 64]", refused("aten::addmm", ("float32[120]", ()), ("float32[2, 2704]", (0,)),
                                          ("float32[400, 120]", ())), "float32[2, 1, 25, 25]"),
        # 17 tokens meet a table of 197 places.
        ("float32[2, 3, 64, 64]", refused("aten::add", ("float32[2, 17, 8]", (0,)), ("float32[1, 197, 8]", ())),
         "float32[2, 3, 218, 218]"),
        # A length meets one that is baked into a trace.
        ("int64[2, 8]", refused("aten::add", ("float32[2, 4, 12]", ()), ("float32[2, 4, 8]", (0,))), "int64[2, 12]"),
        ("float32[2, 8]", refused("aten::view", ("float32[2, 8]", (0,)), numbers=(2, 12)), "float32[2, 12]"),
        ("float32[2, 8]", refused("aten::expand", ("float32[2, 8]", (0,)), numbers=(2, 5)), "float32[2, 5]"),
    ],
)  # fmt: skip
def test_a_size_is_aimed_at_what_it_meets(tried: str, seen: Rejected, wanted: str) -> None:
    assert wanted in suggested(candidate(tried), seen)[:2]


def test_an_aim_goes_on_until_it_is_met() -> None:
    """Sizes that shrink by two windows and two halvings, flattened: found in a few tries."""

    def features(size: int) -> int:
        return 16 * (((size - 4) // 2 - 4) // 2) ** 2

    def run(call: Call) -> Observation:
        ((_, given),) = call_leaves(call)
        if len(given.sizes) != 4:
            return Rejected(0, "RuntimeError", "no", "cpu")
        have = features(given.sizes[2])
        if given.sizes[1] == 1 and given.sizes[2] == given.sizes[3] and have == 400:
            return Accepted((given,), "cpu")
        return refused("aten::addmm", (f"float32[2, {have}]", (0,)), ("float32[400, 120]", ()))

    found = search([], [candidate("float32[2, 1, 64, 64]")], FACTS, run)
    assert isinstance(found, FoundCandidate)
    ((_, taken),) = call_leaves(found.candidate.call)
    assert features(taken.sizes[2]) == 400


def test_a_mask_is_tried_as_one_where_it_masks() -> None:
    seen = refused("aten::masked_fill", ("float32[2, 8, 4]", (0,)), ("int64[2, 8, 1]", (1,)))
    assert "int64[2, 8], bool[2, 8]" in suggested(candidate("int64[2, 8]", "int64[2, 8]"), seen)[:8]


def test_ids_shrink_below_the_table_that_refuses_them() -> None:
    tried = Candidate(Call((Argument(TensorSpec("int64", (2, 8), below=100)),)))
    seen = refused("aten::embedding", ("float32[7, 4]", ()), ("int64[2]", (0,)))
    zeros = Rejected(
        0, "IndexError", "no", "cpu", op=seen.op, operands=seen.operands, ops=3, runs_on_zeros=True
    )
    first = next(iter(find_repairs(tried, zeros, FACTS)))[1]
    assert next(call_leaves(first.call))[1].below == 7


def test_channels_that_two_inputs_give_together_are_shared() -> None:
    parameter_op = ParameterOp(
        "convolution", spec("float32[2, 12, 8, 8]"), "w", spec("float32[4, 6, 3, 3]"), inputs=(0, 1)
    )
    operands = (Operand(spec("float32[2, 12, 8, 8]"), (0, 1)), Operand(spec("float32[4, 6, 3, 3]")))
    seen = Rejected(
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
    assert next(iter(mismatches(seen)))[:2] == (12, 6)
    assert "float32[2, 3, 8, 8], float32[2, 3, 8, 8]" in suggested(both, seen)


def test_the_try_that_got_furthest_is_followed_first() -> None:
    order = list[str]()

    def run(call: Call) -> Observation:
        order.append(str(call))
        far = "float32[2, 7" in str(call)
        return Rejected(
            0, "RuntimeError", "no", "cpu", op="aten::addmm" if far else None, ops=9 if far else 0
        )

    search(
        [],
        [candidate("float32[2, 3]"), candidate("float32[2, 7]"), candidate("float32[2, 5, 5]")],
        FACTS,
        run,
    )
    second = order.index("float32[2, 7]")
    assert order[second + 1].startswith(("int64[2, 7", "bool[2, 7", "float32[2"))
    assert order.index("float32[2, 5, 5]") > second + 2
    assert len(order) == len(set(order)) <= MOST_PROPOSALS


def test_the_search_ends_with_the_budget_and_says_what_was_tried() -> None:
    left = [3]

    def run(call: Call) -> Observation | Untried:
        left[0] -= 1
        return Rejected(0, "RuntimeError", "no", "cpu") if left[0] >= 0 else Untried("spent")

    tried = search([], initial_candidates(FACTS), FACTS, run)
    assert isinstance(tried, list)
    assert len(tried) == 3


def test_what_a_library_states_is_proposed() -> None:
    facts = ModelFacts("M", FACTS.arguments, "eval", (), 0, 0, 0, ("float32",), (), (),
                       settings=(Setting("image_size", (384,)),))  # fmt: skip
    calls = suggested(candidate("float32[2, 3, 64, 64]"), refused(None), facts)
    assert "float32[2, 3, 384, 384]" in calls[:8]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([("input_ids", "Tensor")], "int64[2, 8]"),
        ([("input_ids", "Tensor"), ("attention_mask", "Tensor")], "int64[2, 8], int64[2, 8]"),
        ([("ids", "Tensor"), ("timestep", "Tensor")], "int64[2, 8], int64[2]"),
        ([("wave", "Tensor"), ("rate", "int")], "float32[2, 4000]"),
        ([("items", "List[Tensor]")], "int64[2, 8], int64[2, 8]"),
    ],
)
def test_names_and_types_say_what_to_begin_with(
    arguments: list[tuple[str, str]], wanted: str
) -> None:
    layer = LayerFact("words", "Embedding", (NamedSizes("weight", "float32", (50, 8)),))
    found = tuple(ArgumentFact(name, kind, required=True) for name, kind in arguments)
    facts = ModelFacts("M", found, "eval", (layer,), 400, 400, 0, ("float32",), (), ())
    assert str(next(iter(initial_candidates(facts))).call) == wanted
