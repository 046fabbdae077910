"""Probing: forwards that are counted, remembered and bounded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from composecli.core.errors import CouldNotAttempt
from composecli.core.observations import Accepted, Detail, Observation, Untried
from composecli.core.pytree import Call
from composecli.inference.budget import Budget

INTERRUPTED = "it was interrupted"

Ask = Callable[[Call, Detail], Observation]
Run = Callable[[Call], Observation | Untried]


@dataclass
class Prober:
    """Counts and remembers: the same call is never run twice. Stops at the end of the budget, and at Ctrl-C."""

    ask: Ask
    budget: Budget
    count: int = 0
    stopped: str = ""
    seen: dict[Call, Observation] = field(default_factory=dict)
    watched: dict[Call, Observation] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def outcome(self, call: Call) -> Observation | Untried:
        """Whether the call is taken."""
        found = self.watched.get(call) or self.seen.get(call)
        return found or self._run(call, Detail.OUTCOME, self.seen)

    def trace(self, call: Call) -> Observation | Untried:
        """The same with what the input meets, or why it is refused."""
        return self.watched.get(call) or self._run(call, Detail.PARAMETER_OPS, self.watched)

    def _run(
        self, call: Call, detail: Detail, memory: dict[Call, Observation]
    ) -> Observation | Untried:
        if self.count >= self.budget.probes:
            self.stopped = f"the budget of {self.budget.probes} probes is spent"
        elif time.monotonic() - self.start > self.budget.seconds:
            self.stopped = f"the budget of {self.budget.seconds:g} s is spent"
        if self.stopped:
            return Untried(self.stopped)
        self.count += 1
        try:
            memory[call] = self.ask(call, detail)
        except KeyboardInterrupt:
            self.stopped = INTERRUPTED
            return Untried(self.stopped)
        except CouldNotAttempt as failure:
            if not any(isinstance(seen, Accepted) for seen in self.watched.values()):
                raise
            self.stopped = failure.problem.title
            return Untried(self.stopped)
        return memory[call]
