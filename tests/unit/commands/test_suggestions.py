"""Suggestions: commands that a user can run, or complete, to resolve a finding."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest

from composecli.commands.requests import CheckRequest
from composecli.commands.suggestions import stated_input_fix, with_select_fix
from composecli.core.contract import Contract
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.findings import Finding
from composecli.core.input_spec import parse_input
from composecli.core.pytree import Argument, Call, Tree, TreeMapping
from composecli.core.rules import Rule
from tests.parsing import port, spec

DICT = TreeMapping((("features", spec("float32[2, 16]")), ("logits", spec("float32[2, 5]"))))
STRUCTURE = Finding(Rule.STRUCTURE_DIFFERS, "a.pt returns a dict where a tensor is taken")


def facts(*arguments: str, dtypes: tuple[str, ...] = ("float32",)) -> ModelFacts:
    """The facts of a model with required arguments, each given as `name: type`."""
    required = list[ArgumentFact]()
    for text in arguments:
        name, _, type_name = text.partition(": ")
        required.append(ArgumentFact(name, type_name, required=True))
    return ModelFacts("Net", tuple(required), "eval", (), 0, 0, 0, dtypes, (), ())


def calls(*texts: str) -> tuple[Call, ...]:
    """Calls with one tensor each."""
    return tuple(Call((Argument(spec(text)),)) for text in texts)


def inputs(command: str) -> list[str]:
    """The values of --input in a command."""
    words = shlex.split(command)
    return [value for option, value in pairwise(words) if option == "--input"]


def contract(*ports: str) -> Contract:
    """A contract with these inputs."""
    return Contract(tuple(map(port, ports)), (), Call(()), spec("float32[1]"), ())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["x: Tensor"], ["float32[N,3,224,224]"]),
        (["x"], ["float32[N,3,224,224]"]),
        ([], ["float32[N,3,224,224]"]),
        (["x: Tensor", "rate: int"], ["x=float32[N,3,224,224]", "rate:=1"]),
        (["flag: bool"], ["flag:=true"]),
        (["xs: List[Tensor]"], ["@sample.pt"]),
        (["x: Tensor", "options: Dict[str, Tensor]"], ["@sample.pt"]),
    ],
)
def test_inputs_have_the_names_and_types_of_the_arguments(
    arguments: list[str], expected: list[str]
) -> None:
    fix = stated_input_fix("a b.pt", facts(*arguments), ())
    assert shlex.split(fix.command)[:3] == ["composecli", "inspect", "a b.pt"]
    assert inputs(fix.command) == expected
    for text in expected:
        parse_input(text)


def test_an_input_has_the_dtype_of_the_model() -> None:
    fix = stated_input_fix("a.pt", facts("x: Tensor", dtypes=("int64", "bfloat16")), ())
    assert inputs(fix.command) == ["bfloat16[N,3,224,224]"]


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        (["float32[2, 3]", "float32[2, 3, 224, 224]"], "float32[N,D]"),
        (["int64[2, 3]"], "int64[N,T]"),
        (["float16[2, 5, 7]"], "float16[N,T,L]"),
        (["float32[2, 3, 64, 64]"], "float32[N,3,224,224]"),
        (["float32[16, 3, 224, 224]"], "float32[N,C,H,W]"),
        (["float32[1, 3, 224, 224]", "float32[2, 8, 8, 8]"], "float32[N,C,H,16]"),
        (["int64[2, 8]"], "int64[N,16]"),
    ],
)
def test_a_suggested_input_has_the_rank_of_the_best_attempt_and_was_not_refused(
    tried: list[str], expected: str
) -> None:
    fix = stated_input_fix("a.pt", facts("x: Tensor"), calls(*tried))
    assert inputs(fix.command) == [expected]
    for text in tried:
        assert expected.replace(",", ", ") != text


def test_each_argument_has_the_dtype_of_its_own_tensor() -> None:
    call = Call((Argument(spec("int64[2, 3]")), Argument(spec("float32[2, 3, 4]"), "y")))
    fix = stated_input_fix("a.pt", facts("x: Tensor", "y: Tensor"), (call,))
    assert inputs(fix.command) == ["x=int64[N,T]", "y=float32[N,T,L]"]


def test_the_effect_tells_the_user_to_replace_the_sizes() -> None:
    one = stated_input_fix("a.pt", facts("x: Tensor"), ())
    two = stated_input_fix("a.pt", facts("x: Tensor", "y: Tensor"), ())
    assert one.effect == ("replace the dtype and sizes with those of the real input",)
    assert two.effect == ("replace the dtype and sizes with those of each real input",)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (("a.pt", "b.pt"), ["--select", "logits"]),
        (("a.pt", "b.pt", "c.pt"), ["--select", "2:logits"]),
    ],
)
def test_an_output_that_fits_is_selected(models: tuple[str, ...], words: list[str]) -> None:
    request = CheckRequest(models)
    fixed = with_select_fix(STRUCTURE, request, 2, DICT, contract("float32[N, 5]"))
    assert fixed.fix is not None
    assert shlex.split(fixed.fix.command) == ["composecli", "check", *models, *words]
    assert fixed.fix.effect == ('feeds ["logits"] to x',)


@pytest.mark.parametrize(
    ("finding", "result", "consumer"),
    [
        (Finding(Rule.INPUT_COUNT_DIFFERS, "two inputs"), DICT, contract("float32[N, 5]")),
        (STRUCTURE, DICT, None),
        (STRUCTURE, DICT, contract("float32[N, 5]", "float32[N, 5]")),
        (STRUCTURE, DICT, contract("float32[N, 9]")),
    ],
)
def test_without_an_output_that_fits_nothing_is_suggested(
    finding: Finding, result: Tree, consumer: Contract | None
) -> None:
    request = CheckRequest(("a.pt", "b.pt"))
    assert with_select_fix(finding, request, 1, result, consumer) == finding
