"""References: the text of a MODEL argument, and the traits of each kind of model."""

from __future__ import annotations

import pytest

from composecli.core.model_ref import (
    KIND_TRAITS,
    FactoryReference,
    FileReference,
    ModelKind,
    Reference,
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
        # Each of these lacks something that a factory needs.
        ("net:make", FileReference("net:make")),
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


def test_every_kind_has_traits() -> None:
    assert set(KIND_TRAITS) == set(ModelKind)
    for kind in ModelKind:
        assert kind.traits is KIND_TRAITS[kind]


def test_only_a_factory_runs_code_of_the_user() -> None:
    kinds = [kind for kind in ModelKind if kind.traits.runs_user_code]
    assert kinds == [ModelKind.FACTORY]


def test_archives_list_their_arguments() -> None:
    kinds = [kind for kind in ModelKind if kind.traits.lists_arguments]
    assert kinds == [ModelKind.TORCHSCRIPT, ModelKind.EXPORTED]
