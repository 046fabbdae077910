"""Suggestions: what a user can state of a model that composecli could not find out."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import pairwise

import pytest

from composecli.commands.suggestions import stated_input_help
from composecli.core.facts import ArgumentFact, LayerFact, ModelFacts
from composecli.core.input_spec import parse_input
from composecli.core.pytree import Argument, Call
from tests.parsing import spec


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


def inputs(help: str) -> list[str]:
    """The values of --input in a text."""
    words = [word.removesuffix(",") for word in shlex.split(help)]
    return [value for option, value in pairwise(words) if option == "--input"]


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
    assert inputs(stated_input_help(facts(*arguments), ())) == expected
    for text in expected:
        parse_input(text)


def test_an_input_has_the_dtype_of_the_model() -> None:
    help = stated_input_help(facts("x: Tensor", dtypes=("int64", "bfloat16")), ())
    assert inputs(help) == ["bfloat16[N,3,224,224]"]


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        (["float32[2, 3]", "float32[2, 3, 224, 224]"], "float32[N,D]"),
        (["float32[2, 5, 7]"], "float32[N,T,L]"),
        (["float16[2, 5, 7]"], "float32[N,T,L]"),
        (["float32[2, 3, 64, 64]"], "float32[N,3,224,224]"),
        (["float32[16, 3, 224, 224]"], "float32[N,C,H,W]"),
        (["float32[1, 3, 224, 224]", "float32[2, 8, 8, 8]"], "float32[N,C,H,16]"),
        (["float32[2, 8]", "float32[2, 16]", "float32[2, 32]", "float32[2, 64]"], "@sample.pt"),
    ],
)
def test_a_suggested_input_has_the_rank_of_the_best_attempt_and_was_not_refused(
    tried: list[str], expected: str
) -> None:
    assert inputs(stated_input_help(facts("x: Tensor"), calls(*tried))) == [expected]
    for text in tried:
        assert expected.replace(",", ", ") != text


def test_each_argument_has_the_dtype_of_its_own_tensor() -> None:
    call = Call((Argument(spec("int64[2, 3]")), Argument(spec("float32[2, 3, 4]"), "y")))
    help = stated_input_help(facts("ids: Tensor", "y: Tensor"), (call,))
    assert inputs(help) == ["ids=int64[N,T]", "y=float32[N,T,L]"]


@pytest.mark.parametrize(
    ("argument", "layers", "dtypes", "expected"),
    [
        ("x: Tensor", (), ("float16",), "float16[N,D]"),
        ("x: Tensor", ("Linear",), ("float32",), "float32[N,D]"),
        ("x: Tensor", ("Embedding",), ("float16",), "int64[N,T]"),
        ("input_ids: Tensor", (), ("float16",), "int64[N,T]"),
        ("attention_mask: Tensor", ("Linear",), ("float16",), "int64[N,T]"),
        ("x: Tensor", (), (), "int64[N,T]"),
    ],
)
def test_integers_are_suggested_only_where_they_may_be_ids(
    argument: str, layers: tuple[str, ...], dtypes: tuple[str, ...], expected: str
) -> None:
    known = replace(
        facts(argument, dtypes=dtypes),
        layers=tuple(LayerFact(name, name, ()) for name in layers),
    )
    assert inputs(stated_input_help(known, calls("int64[2, 3]"))) == [expected]


def test_the_advice_tells_the_user_to_replace_the_sizes() -> None:
    one = stated_input_help(facts("x: Tensor"), ())
    two = stated_input_help(facts("x: Tensor", "y: Tensor"), ())
    assert one.endswith("with its own dtype and sizes")
    assert two.endswith("with their own dtypes and sizes")
