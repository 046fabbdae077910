"""Problems that keep composecli from answering. A mismatch is an answer: see findings."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be attempted, in the parts of an error message.

    `where` names the file or model concerned, `notes` are facts, `help` suggests a remedy, and
    `trace` is the traceback from another process.
    """

    rule: Rule
    title: str
    where: str | None = None
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    trace: str | None = None

    @property
    def code(self) -> str:
        """The code of the rule, as in `CC901`."""
        return self.rule.value


class CouldNotAttempt(Exception):
    """The command cannot be carried out: unreadable, refused, crashed. Exit code 3."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title)
        self.problem = problem
