"""Stated inputs: the call that the values of --input declare."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from composecli.commands.stated_inputs import (
    refuse_inputs_of_no_model,
    refuse_unknown_name,
    state_inputs,
)
from composecli.core.errors import CouldNotAttempt
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.input_spec import parse_input
from composecli.core.model_ref import ModelKind
from composecli.core.pytree import Argument, Literal
from composecli.inference.candidates import Candidate
from composecli.runtime.in_process import InProcessWorker
from tests.parsing import spec

FACTS = ModelFacts(
    "Net", (ArgumentFact("x", "Tensor", required=True),), "eval", (), 0, 0, 0, ("float16",), (), ()
)  # fmt: skip


def state(*texts: str) -> Candidate:
    """The call that these values of --input state for a pickled model."""
    inputs = tuple(parse_input(text) for text in texts)
    return state_inputs(inputs, "a.pt", FACTS, ModelKind.PICKLED, InProcessWorker())


@pytest.mark.parametrize(
    ("texts", "arguments", "dims"),
    [
        (["float32[N,10]"], [Argument(spec("float32[2, 10]"))], ["N, 10"]),
        # Sizes without a dtype are an example: the contract is still to be found.
        (["4,10"], [Argument(spec("float16[4, 10]"))], []),
        (["N,10"], [Argument(spec("float16[2, 10]"))], ["N, 10"]),
        (["int64[1,16]"], [Argument(spec("int64[1, 16]"))], ["1, 16"]),
        (
            ["y=float32[N,7]", "rate:=2"],
            [Argument(spec("float32[2, 7]"), "y"), Argument(Literal(2), "rate")],
            ["N, 7"],
        ),
    ],
)
def test_a_call_has_the_stated_arguments_and_dims(
    texts: list[str], arguments: list[Argument], dims: list[str]
) -> None:
    stated = state(*texts)
    assert list(stated.call.arguments) == arguments
    assert [", ".join(map(str, shape)) for _, shape in stated.dims] == dims


@pytest.mark.parametrize(("text", "count", "refused"), [("2:1,3", 2, False), ("3:1,3", 2, True)])
def test_an_input_of_a_model_that_has_none_is_refused(text: str, count: int, refused: bool) -> None:
    declared = (parse_input(text),)
    if not refused:
        refuse_inputs_of_no_model(declared, count)
        return
    with pytest.raises(CouldNotAttempt, match="model 3, but the last model is number 2"):
        refuse_inputs_of_no_model(declared, count)


def test_a_name_has_one_size_in_all_inputs() -> None:
    stated = state("float32[N,T>=20]", "float32[T,N]")
    sizes = [str(argument.value) for argument in stated.call.arguments]
    assert sizes == ["float32[2, 20]", "float32[20, 2]"]
    assert [path for path, _ in stated.dims] == [(0,), (1,)]


def test_a_sample_file_may_hold_several_inputs(here: Path) -> None:
    torch.save({"x": torch.zeros(3, 4), "ids": torch.tensor([1, 7])}, "sample.pt")
    stated = state("@sample.pt")
    assert [argument.name for argument in stated.call.arguments] == ["x", "ids"]
    assert stated.dims == ()


def test_a_sample_file_that_is_missing_is_a_problem(here: Path) -> None:
    with pytest.raises(CouldNotAttempt, match="sample file"):
        state("@nothing.pt")


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        (ModelKind.TORCHSCRIPT, True),
        (ModelKind.EXPORTED, True),
        # A Python forward may take more than its signature shows.
        (ModelKind.PICKLED, False),
        (ModelKind.FACTORY, False),
    ],
)
def test_a_name_is_refused_if_the_file_lists_all_of_them(kind: ModelKind, refused: bool) -> None:
    assert kind.traits.lists_arguments is refused
    declared = parse_input("y=float32[2,3]")
    if not refused:
        refuse_unknown_name(declared, "a.pt", FACTS, kind)
        return
    with pytest.raises(CouldNotAttempt, match="the model has no input y") as caught:
        refuse_unknown_name(declared, "a.pt", FACTS, kind)
    assert caught.value.problem.notes == ("its inputs: x",)


@pytest.mark.parametrize("text", ["x=float32[2,3]", "float32[2,3]", ":=3", "@sample.pt"])
def test_a_known_name_or_none_is_accepted(text: str) -> None:
    refuse_unknown_name(parse_input(text), "a.pt", FACTS, ModelKind.TORCHSCRIPT)
