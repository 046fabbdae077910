"""Run forwards, each call at most once, within a budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from composecli.core.errors import CouldNotAttempt
from composecli.core.observations import (
    Accepted,
    Detail,
    Observation,
    Rejected,
    RejectionKind,
    Untried,
)
from composecli.core.pytree import Call

INTERRUPTED = "it was interrupted"

# Run one forward in the worker.
Ask = Callable[[Call, Detail], Observation]
# Run one forward, or return why none was run.
Probe = Callable[[Call], Observation | Untried]


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that inferring one model's contract may cost: forwards, and seconds in total."""

    probes: int = 300
    seconds: float = 120.0


@dataclass
class Prober:
    """Run and count forwards, and remember their results, until the budget ends or at Ctrl-C."""

    ask: Ask
    budget: Budget
    count: int = 0
    stopped: str = ""
    outcomes: dict[Call, Observation] = field(default_factory=dict)
    traces: dict[Call, Observation] = field(default_factory=dict)
    start_time: float = field(default_factory=time.monotonic)

    def outcome(self, call: Call) -> Observation | Untried:
        """Return whether the call is accepted."""
        known = self.traces.get(call) or self.outcomes.get(call)
        if known is not None:
            return known
        return self._run(call, Detail.OUTCOME, self.outcomes)

    def trace(self, call: Call) -> Observation | Untried:
        """Return whether the call is accepted, with the ops in which inputs meet parameters."""
        known = self.traces.get(call)
        if known is not None:
            return known
        return self._run(call, Detail.PARAMETER_OPS, self.traces)

    def _run(
        self, call: Call, detail: Detail, memory: dict[Call, Observation]
    ) -> Observation | Untried:
        """Run one forward and remember its observation, unless the budget is spent."""
        if self.count >= self.budget.probes:
            self.stopped = f"the budget of {self.budget.probes} probes is spent"
        elif self._is_late():
            self.stopped = self._late
        if self.stopped:
            return Untried(self.stopped)
        self.count += 1
        try:
            observation = self.ask(call, detail)
        except KeyboardInterrupt:
            self.stopped = INTERRUPTED
            return Untried(self.stopped)
        except CouldNotAttempt as failure:
            # Without an accepted call there is no contract to save, so the failure is the result.
            any_accepted = any(isinstance(trace, Accepted) for trace in self.traces.values())
            if not any_accepted:
                raise
            self.stopped = failure.problem.title
            return Untried(self.stopped)
        if _was_stopped(observation) and self._is_late():
            # It was stopped at the end of the budget: that does not say that the model rejects it.
            self.stopped = self._late
            return Untried(self._late)
        memory[call] = observation
        return observation

    def _is_late(self) -> bool:
        """Whether the seconds of the budget are spent."""
        return time.monotonic() - self.start_time > self.budget.seconds

    @property
    def _late(self) -> str:
        return f"the budget of {self.budget.seconds:g} s is spent"


def _was_stopped(observation: Observation) -> bool:
    """Whether the process that ran the forward ended before the forward did."""
    return isinstance(observation, Rejected) and observation.kind is RejectionKind.WORKER_DIED
