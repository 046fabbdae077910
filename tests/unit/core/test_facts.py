"""Facts: what follows from the arguments and dtypes of a model."""

from __future__ import annotations

import pytest

from composecli.core.facts import ArgumentFact, ModelFacts


def facts(
    *arguments: str, main_input: str | None = None, dtypes: tuple[str, ...] = ()
) -> ModelFacts:
    """A model with these arguments; a name that ends in `=` has a default value."""
    parsed = [ArgumentFact(name.rstrip("="), "", not name.endswith("=")) for name in arguments]
    return ModelFacts(
        "Model", tuple(parsed), "eval", (), 0, 0, 0, dtypes, (), (), main_input=main_input
    )


@pytest.mark.parametrize(
    ("arguments", "main_input", "needed"),
    [
        (("x", "y", "mask="), None, ["x", "y"]),
        (("ids=", "pixels="), "pixels", ["pixels"]),
        (("ids=", "pixels="), "no such argument", ["ids"]),
        (("ids=", "pixels="), None, ["ids"]),
        (("x", "pixels="), "pixels", ["x"]),
        ((), "pixels", []),
    ],
)
def test_a_call_needs_the_required_arguments_or_the_main_input(
    arguments: tuple[str, ...], main_input: str | None, needed: list[str]
) -> None:
    found = facts(*arguments, main_input=main_input).needed_arguments
    assert [argument.name for argument in found] == needed


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        (("int64", "bfloat16", "float32"), "bfloat16"),
        (("int64", "complex64"), "float32"),
        ((), "float32"),
    ],
)
def test_the_float_dtype_is_that_of_the_parameters(dtypes: tuple[str, ...], expected: str) -> None:
    assert facts(dtypes=dtypes).float_dtype == expected
