"""Findings about a model in a composition: no contract, or no such output."""

from __future__ import annotations

from composecli.commands.composition import no_such_output, not_found_finding
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.observations import Rejected
from composecli.core.pytree import Argument, Call, TreeMapping
from composecli.inference.result import NotFound
from tests.parsing import spec

FACTS = ModelFacts(
    "Net",
    (ArgumentFact("x", "Tensor", required=True), ArgumentFact("mask", "Tensor", required=False)),
    "eval", (), 0, 0, 0, (), (), (),
)  # fmt: skip


def rejection(message: str, error: str = "AssertionError") -> Rejected:
    """A forward that raised at an assertion."""
    return Rejected(0, error, message, "cpu", code="assert x.dim() == 3")


def tried(*texts: str, message: str = "") -> NotFound:
    """A search that ended without a contract after these calls."""
    calls = [Call((Argument(spec(text)),)) for text in texts]
    return NotFound(tuple((call, rejection(message)) for call in calls), len(calls))


def test_the_notes_say_what_was_tried_and_what_forward_takes() -> None:
    texts = [f"float32[2, {size}]" for size in range(3, 8)]
    finding = not_found_finding("a.pt", FACTS, tried(*texts), stated=False)
    assert finding.code == "CC304"
    assert finding.notes == (
        "tried float32[2, 3]: failed at `assert x.dim() == 3`",
        "the best attempt ended with AssertionError, without a message",
        "forward accepts x: Tensor",
    )


def test_an_error_with_a_message_is_shown_with_it() -> None:
    finding = not_found_finding("a.pt", FACTS, tried("float32[2]", message="3d"), stated=False)
    assert "the best attempt ended with AssertionError: 3d" in finding.notes


def test_no_note_ends_in_a_colon_and_no_refused_input_is_suggested() -> None:
    texts = ["float32[2, 3]", "float32[2, 3, 224, 224]"]
    finding = not_found_finding("a.pt", FACTS, tried(*texts), stated=False)
    assert not any(note.rstrip().endswith(":") for note in finding.notes)
    assert finding.fix is None
    (help,) = finding.help
    assert "--input" in help
    for text in texts:
        assert text.replace(" ", "") not in help
    assert "float32[N,3,224,224]" not in help


def test_one_attempt_is_shown_for_each_place_that_failed_the_furthest_first() -> None:
    calls = [Call((Argument(spec(f"float32[2, {size}]")),)) for size in range(3, 8)]
    places = ["rank", "rank", "width", "rank", "rows"]
    rejected = [
        Rejected(0, "ValueError", place, "cpu", code=place, ops=int(place == "rows"))
        for place in places
    ]
    found = NotFound(tuple(zip(calls, rejected, strict=True)), 5)
    finding = not_found_finding("a.pt", FACTS, found, stated=False)
    assert finding.notes[:4] == (
        "tried float32[2, 7]: failed at `rows`",
        "tried float32[2, 5]: failed at `width`",
        "tried float32[2, 3]: failed at `rank`",
        "the best attempt ended with ValueError: rows",
    )


def test_a_search_that_ran_out_of_time_says_so() -> None:
    stopped = NotFound((), 300, "300 forwards were made")
    finding = not_found_finding("a.pt", FACTS, stopped, stated=False)
    assert finding.notes[-1] == "the search stopped: 300 forwards were made"


def test_a_stated_input_that_is_refused_is_a_finding_of_its_own() -> None:
    finding = not_found_finding("a.pt", FACTS, tried("float32[2, 11]"), stated=True)
    assert finding.code == "CC310"
    assert finding.title == "a.pt fails on the input that was stated for it"
    assert finding.sides[0].port == "float32[2, 11]"


def test_a_missing_output_lists_those_there_are() -> None:
    result = TreeMapping((("logits", spec("float32[2, 5]")), ("ids", spec("int64[2]"))))
    finding = no_such_output("a.pt", "nothing", result)
    assert finding.code == "CC103"
    assert finding.notes == ("available outputs: logits, ids",)
    assert no_such_output("a.pt", "x", spec("float32[2]")).notes == (
        "available outputs: the tensor itself",
    )
