"""The search follows the attempt that got furthest, and ends with the budget."""

from __future__ import annotations

from composecli.core.observations import Observation, Rejected, Untried
from composecli.core.pytree import Call
from composecli.inference.candidates import initial_candidates
from composecli.inference.hints import Hints
from composecli.inference.search import MAX_CANDIDATES, FoundCandidate, search
from tests.unit.inference.builders import REJECTED, accepted, candidate, facts


def test_attempt_that_got_furthest_is_repaired_first() -> None:
    order = list[str]()

    def probe(call: Call) -> Observation:
        order.append(str(call))
        far = "float32[2, 7" in str(call)
        return Rejected(
            0, "RuntimeError", "no", "cpu", op="aten::addmm" if far else None, ops=9 if far else 0
        )

    search(
        [],
        [candidate("float32[2, 3]"), candidate("float32[2, 7]"), candidate("float32[2, 5, 5]")],
        Hints(facts()),
        probe,
    )
    second = order.index("float32[2, 7]")
    assert order[second + 1].startswith(("int64[2, 7", "bool[2, 7", "float32[2"))
    assert order.index("float32[2, 5, 5]") > second + 2
    assert len(order) == len(set(order)) <= MAX_CANDIDATES


def test_search_ends_with_the_budget_and_returns_what_was_tried() -> None:
    left = [3]

    def probe(call: Call) -> Observation | Untried:
        left[0] -= 1
        return REJECTED if left[0] >= 0 else Untried("spent")

    tried = search([], initial_candidates(facts()), Hints(facts()), probe)
    assert isinstance(tried, list)
    assert len(tried) == 3


def test_stated_candidates_are_not_repaired() -> None:
    order = list[str]()

    def probe(call: Call) -> Observation:
        order.append(str(call))
        return REJECTED

    stated = [candidate("float32[2, 3]"), candidate("float32[2, 4]")]
    search(stated, [], Hints(facts()), probe)
    assert order == ["float32[2, 3]", "float32[2, 4]"]


def test_huge_calls_are_never_probed() -> None:
    def probe(call: Call) -> Observation:
        assert call.elements < 10**7
        return REJECTED

    attempts = search([], [candidate("float32[2, 3, 4000, 4000]")], Hints(facts()), probe)
    assert attempts == []


def test_first_accepted_candidate_is_returned() -> None:
    guesses = [candidate("float32[2, 3]"), candidate("float32[2, 4]")]

    def probe(call: Call) -> Observation:
        return accepted("float32[2, 1]") if "4]" in str(call) else REJECTED

    found = search([], guesses, Hints(facts()), probe)
    assert isinstance(found, FoundCandidate)
    assert str(found.candidate.call) == "float32[2, 4]"


def test_attempts_are_returned_furthest_first() -> None:
    def probe(call: Call) -> Observation:
        return Rejected(0, "RuntimeError", "no", "cpu", ops=call.elements)

    stated = [candidate("float32[2, 3]"), candidate("float32[2, 9]"), candidate("float32[2, 5]")]
    attempts = search(stated, [], Hints(facts()), probe)
    assert isinstance(attempts, list)
    assert [str(call) for call, _ in attempts] == [
        "float32[2, 9]",
        "float32[2, 5]",
        "float32[2, 3]",
    ]
