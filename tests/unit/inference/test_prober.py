"""The prober runs each call once and stops at the end of its budget."""

from __future__ import annotations

import time

import pytest

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.observations import Detail, Observation, Rejected, RejectionKind, Untried
from composecli.core.pytree import Call
from composecli.core.rules import Rule
from composecli.inference.prober import INTERRUPTED, Budget, Prober
from tests.unit.inference.builders import REJECTED, accepted, call

DIED = Rejected(0, "ChildEnded", "it was stopped", "cpu", kind=RejectionKind.WORKER_DIED)


def accept(tried: Call, detail: Detail) -> Observation:
    return accepted("float32[2]")


def test_call_is_run_once_for_each_detail() -> None:
    prober = Prober(accept, Budget())
    for _ in range(2):
        prober.outcome(call("float32[2]"))
    assert prober.count == 1
    for _ in range(2):
        prober.trace(call("float32[2]"))
    assert prober.count == 2


def test_trace_also_answers_whether_a_call_is_accepted() -> None:
    prober = Prober(accept, Budget())
    prober.trace(call("float32[2]"))
    prober.outcome(call("float32[2]"))
    assert prober.count == 1


def test_no_forward_runs_after_the_last_probe_of_the_budget() -> None:
    prober = Prober(accept, Budget(probes=1))
    prober.outcome(call("float32[2]"))
    assert prober.outcome(call("float32[3]")) == Untried("the budget of 1 probes is spent")
    assert prober.outcome(call("float32[2]")) == accepted("float32[2]")


def test_no_forward_runs_after_the_last_second_of_the_budget() -> None:
    prober = Prober(accept, Budget(seconds=0))
    assert prober.outcome(call("float32[3]")) == Untried("the budget of 0 s is spent")


def test_interrupt_stops_all_further_forwards() -> None:
    def interrupt(tried: Call, detail: Detail) -> Observation:
        raise KeyboardInterrupt

    prober = Prober(interrupt, Budget())
    assert prober.outcome(call("float32[2]")) == Untried(INTERRUPTED)
    assert prober.outcome(call("float32[3]")) == Untried(INTERRUPTED)
    assert prober.count == 1


@pytest.mark.parametrize("is_accepted", [True, False])
def test_failure_of_the_worker_ends_inference_only_after_an_accepted_call(
    is_accepted: bool,
) -> None:
    def die_at_second(tried: Call, detail: Detail) -> Observation:
        if prober.count == 2:
            raise failure
        return accepted("float32[2]") if is_accepted else REJECTED

    failure = CouldNotAttempt(Problem(next(iter(Rule)), "the worker died"))
    prober = Prober(die_at_second, Budget())
    prober.trace(call("float32[2]"))
    if is_accepted:
        assert prober.outcome(call("float32[3]")) == Untried(failure.problem.title)
    else:
        with pytest.raises(CouldNotAttempt):
            prober.outcome(call("float32[3]"))


@pytest.mark.parametrize(
    ("seconds", "answer"),
    [(0.05, Untried("the budget of 0.05 s is spent")), (60.0, DIED)],
)
def test_a_forward_that_is_stopped_at_the_end_of_the_budget_was_not_tried(
    seconds: float, answer: Observation | Untried
) -> None:
    def hang(tried: Call, detail: Detail) -> Observation:
        time.sleep(0.1)
        return DIED

    prober = Prober(hang, Budget(seconds=seconds))
    assert prober.outcome(call("float32[2]")) == answer
