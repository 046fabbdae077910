"""References: the text of a MODEL argument, and the traits of each kind of model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composecli.core.model_ref import (
    KIND_TRAITS,
    FactoryReference,
    FileReference,
    ModelKind,
    Reference,
    literal_arguments,
    parse_reference,
)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("a.pt", FileReference("a.pt")),
        ("dir/a b.pt2", FileReference("dir/a b.pt2")),
        ("net:make@w.pt", FactoryReference("net", "make", "w.pt")),
        ("package.net:make@w.pt", FactoryReference("package.net", "make", "w.pt")),
        ("dir/net.py:make@dir/w.pt", FactoryReference("dir/net.py", "make", "dir/w.pt")),
        ("net:make@a@b.pt", FactoryReference("net", "make", "a@b.pt")),
        ("net:make", FactoryReference("net", "make", None)),
        ("net.py:Net.tiny@w.pt", FactoryReference("net.py", "Net.tiny", "w.pt")),
        ("net:Net()", FactoryReference("net", "Net", None, "()")),
        ("net:Net(10, a='x')@w.pt", FactoryReference("net", "Net", "w.pt", "(10, a='x')")),
        # What is in a string ends neither the arguments nor the reference.
        ("net:Net(')@(')@w@.pt", FactoryReference("net", "Net", "w@.pt", "(')@(')")),
        ("net:Net((1, (2,)))@w.pt", FactoryReference("net", "Net", "w.pt", "((1, (2,)))")),
        ("net:Net(1@w.pt", FactoryReference("net", "Net", None, "(1@w.pt")),
        ("a.py:b/c.py:make@w.pt", FactoryReference("a.py:b/c.py", "make", "w.pt")),
        # Each of these lacks something that a factory needs.
        ("net:Net(1)w.pt", FileReference("net:Net(1)w.pt")),
        ("net:Net(1)@", FileReference("net:Net(1)@")),
        ("net@w.pt", FileReference("net@w.pt")),
        ("net:make@", FileReference("net:make@")),
        ("dir/net:make@w.pt", FileReference("dir/net:make@w.pt")),
        ("net:2make@w.pt", FileReference("net:2make@w.pt")),
    ],
)
def test_an_argument_is_a_file_or_a_factory_with_its_weights(
    text: str, reference: Reference
) -> None:
    assert parse_reference(text) == reference
    assert reference.name == text


@pytest.mark.parametrize(
    ("text", "positional", "named"),
    [
        ("", (), {}),
        ("()", (), {}),
        ("(10, 'relu', [1, 2.5], act=None)", (10, "relu", [1, 2.5]), {"act": None}),
        ("(-1, (3, 4), {'a': {1}}, flag=True)", (-1, (3, 4), {"a": {1}}), {"flag": True}),
    ],
)
def test_arguments_are_literals(
    text: str, positional: tuple[Any, ...], named: dict[str, Any]
) -> None:
    assert literal_arguments(text) == (positional, named)


@pytest.mark.parametrize(
    "text",
    [
        "(torch.float32)", "(open('x'))", "(*[1])", "(**{'a': 1})", "(x)", "(1", "(1)(2)",
        "(a=__import__('os'))", "(10 ** 10)", "(1 for i in 'a')", "(", "(\0)",
        "(" + "[" * 10_000 + "]" * 10_000 + ")",
    ],
)  # fmt: skip
def test_arguments_that_are_no_literals_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a|has no name"):
        literal_arguments(text)


@given(st.lists(st.text() | st.integers() | st.booleans() | st.none()), st.text(min_size=1))
def test_any_literals_can_be_arguments(values: list[Any], path: str) -> None:
    text = f"net:Net({', '.join(map(repr, values))})@{path}"
    reference = parse_reference(text)
    assert isinstance(reference, FactoryReference)
    assert (reference.path, reference.name) == (path, text)
    assert literal_arguments(reference.arguments) == (tuple(values), {})


def test_every_kind_has_traits() -> None:
    assert set(KIND_TRAITS) == set(ModelKind)
    for kind in ModelKind:
        assert kind.traits is KIND_TRAITS[kind]


def test_only_a_factory_runs_code_of_the_user() -> None:
    kinds = [kind for kind in ModelKind if kind.traits.runs_user_code]
    assert kinds == [ModelKind.FACTORY, ModelKind.FACTORY_ALONE]


def test_archives_and_contracts_list_their_arguments() -> None:
    kinds = [kind for kind in ModelKind if kind.traits.lists_arguments]
    assert kinds == [ModelKind.TORCHSCRIPT, ModelKind.EXPORTED, ModelKind.CONTRACT]
