"""Remedies become commands that can be copied: those of the user, with one change."""

from __future__ import annotations

import pytest

from composecli.commands.remedies import remedies_written_out, with_commands
from composecli.commands.requests import CheckRequest, InspectRequest, JoinRequest, Options
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.rules import Rule

TRUST = Remedy(("--trust", "b.pt"))
REPLACE = Remedy(model="net.py:Net@b.pt")
OPTIONS = Options(words=("--key", "ema"))


def problem(*remedies: Remedy, where: str | None = "b.pt") -> Problem:
    return Problem(Rule.IMPORTS_NOT_TRUSTED, "no", where, remedies=remedies)


def commands(problem: Problem) -> list[str]:
    return [remedy.command for remedy in problem.remedies]


def test_each_command_repeats_itself_with_the_change() -> None:
    check = CheckRequest(("a.pt", "b.pt"), strict=True, options=OPTIONS)
    parallel = CheckRequest(
        ("a.pt", "b.pt"), Mode.PARALLEL, merge=Merge.ADD, bridge=BridgeMode.AUTO, options=OPTIONS
    )
    join = JoinRequest(parallel, "out file.pt", seed=3, force=True)
    assert commands(with_commands(problem(TRUST), check)) == [
        "composecli check a.pt b.pt --key ema --trust b.pt --strict"
    ]
    joining = "composecli join a.pt b.pt --mode parallel --merge add --key ema"
    assert commands(with_commands(problem(TRUST), join)) == [
        f"{joining} --trust b.pt --bridge auto --seed 3 --force -o 'out file.pt'"
    ]
    assert commands(with_commands(problem(TRUST), InspectRequest("b.pt", OPTIONS))) == [
        "composecli inspect b.pt --key ema --trust b.pt"
    ]


def test_only_the_model_at_fault_is_replaced() -> None:
    check = CheckRequest(("a.pt", "b.pt"))
    assert commands(with_commands(problem(REPLACE), check)) == [
        "composecli check a.pt net.py:Net@b.pt"
    ]
    by_file = with_commands(problem(Remedy(model="b.pt")), InspectRequest("net:make@b.pt"))
    assert commands(by_file) == ["composecli inspect b.pt"]
    assert commands(with_commands(problem(REPLACE, where=None), check)) == [
        "composecli check a.pt b.pt"
    ]


def test_an_option_that_was_given_is_not_repeated() -> None:
    given = Options(words=("--trust", "b.pt"))
    request = InspectRequest("b.pt", given)
    both = problem(TRUST, Remedy(("--trust", "b.pt", "--import", "net.py")))
    assert commands(with_commands(both, request)) == [
        "composecli inspect b.pt --trust b.pt",
        "composecli inspect b.pt --trust b.pt --import net.py",
    ]


def test_an_option_that_can_be_given_once_is_replaced() -> None:
    changed = with_commands(problem(Remedy(("--key", "model"))), InspectRequest("b.pt", OPTIONS))
    assert commands(changed) == ["composecli inspect b.pt --key model"]


def test_equal_commands_are_shown_once() -> None:
    request = InspectRequest("b.pt")
    assert len(with_commands(problem(TRUST, TRUST), request).remedies) == 1


def test_a_problem_that_passes_through_gets_its_commands() -> None:
    with pytest.raises(CouldNotAttempt) as raised, remedies_written_out(InspectRequest("b.pt")):
        raise CouldNotAttempt(problem(TRUST))
    assert commands(raised.value.problem) == ["composecli inspect b.pt --trust b.pt"]
