"""Problems that keep composecli from answering. A mismatch is an answer: see findings."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace

from composecli.core.command_line import command_line
from composecli.core.rules import Rule

_RAISE_FILES = "'ulimit -n 256' allows more open files"
_RAISE_PROCESSES = "'ulimit -u' shows how many processes are allowed"
_SYSTEM_HELP = {
    errno.EMFILE: _RAISE_FILES,
    errno.ENFILE: _RAISE_FILES,
    errno.EAGAIN: _RAISE_PROCESSES,
}


class Terminated(BaseException):
    """SIGTERM came."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """A change of the command that gets further, and its effect.

    `model` replaces the MODEL argument at fault, unless it is empty, and `words` are added to the
    options. `command` is the changed command line, which only the command itself can write.
    """

    words: tuple[str, ...] = ()
    model: str = ""
    effect: str = ""
    command: str = ""

    @property
    def text(self) -> str:
        """The command line; the change alone as long as nothing has filled that in."""
        if self.command:
            return self.command
        return command_line(word for word in (self.model, *self.words) if word)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something could not be attempted, in the parts of an error message.

    `where` names the file or model concerned, `notes` are facts, `remedies` are commands to run
    instead, `help` is advice that is no command, and `trace` is the traceback from another process.
    """

    rule: Rule
    title: str
    where: str | None = None
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    trace: str | None = None
    remedies: tuple[Remedy, ...] = ()

    @property
    def code(self) -> str:
        """The code of the rule, as in `CC901`."""
        return self.rule.value

    def __str__(self) -> str:
        return self.text("error")

    def text(self, label: str) -> str:
        """Return the message, with a line for the title, the place, each note and each help."""
        lines = [f"{label}[{self.code}]: {self.title}"]
        if self.where is not None:
            lines.append(f"  {self.where}")
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  help: {help}" for help in self.help]
        return "\n".join(lines)


class CouldNotAttempt(Exception):
    """The command cannot be carried out: unreadable, refused, crashed.

    Its text is the whole message of the problem.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


def system_problem(error: OSError) -> Problem:
    """Return the problem of an error of the operating system that no other problem explains."""
    reason = error.strerror or str(error) or type(error).__name__
    where = None
    if error.filename is not None:
        where = str(error.filename)
    title = f"the system refused to go on: {reason}"
    problem = Problem(Rule.SYSTEM_REFUSED, title, where)
    if error.errno in _SYSTEM_HELP:
        help = _SYSTEM_HELP[error.errno]
        return replace(problem, help=(help,))
    return problem
