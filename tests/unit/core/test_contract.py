"""Contracts: the tensors and calls that they accept, and their text."""

from __future__ import annotations

import pytest

from composecli.core.contract import (
    Contract,
    accepts,
    accepts_call,
    fresh_name,
    input_name,
    output_name,
)
from composecli.core.pytree import (
    Argument,
    Call,
    KeyPath,
    Literal,
    Opaque,
    TensorSpec,
    Tree,
    TreeMapping,
    TreeSequence,
    call_leaves,
    leaves,
)
from tests.parsing import port, spec

A, B = TensorSpec("float32", (2, 5)), TensorSpec("int64", (2, 7))


@pytest.mark.parametrize(
    ("wanted", "given", "answer"),
    [
        ("float32[N, 5]", "float32[2, 5]", True),
        ("float32[N, 5]", "float32[2, 4]", False),
        ("float32[N, 5]", "float32[2, 5, 1]", False),
        ("float32[N, 5]", "float64[2, 5]", False),
        ("float32[*]", "float32[7]", True),
        ("float32[N, ?]", "float32[2, 5]", None),
        ("float32[?, 5]", "float32[2, 4]", False),
        ("float[*]", "float16[7]", True),
        ("float[*]", "int64[7]", False),
    ],
)
def test_a_port_accepts(wanted: str, given: str, answer: bool | None) -> None:
    assert accepts(port(wanted), spec(given)) is answer


def test_ports_have_readable_names() -> None:
    assert output_name(()) == "output 0"
    assert output_name(("logits",)) == "logits"
    assert output_name((0, "a")) == "[0].a"
    assert input_name((0,), "ids") == "ids"
    assert input_name((0, "mask"), "batch") == "batch.mask"
    assert input_name((1, 0), None) == "input 1[0]"


def contract(example: Call, result: Tree, *optional: KeyPath) -> Contract:
    """A contract that accepts the sizes of its example, and optional inputs `float32[N, ?]`."""
    text = {A: "float32[N, 5]", B: "int64[N, 7]"}
    inputs = [(path, port(text[leaf])) for path, leaf in call_leaves(example)]
    ports = [type(p)(f"input {n}", path, p.dtype, p.dims) for n, (path, p) in enumerate(inputs)]
    for path in optional:
        extra = port("float32[N, ?]")
        ports.append(type(extra)("mask", path, extra.dtype, extra.dims, optional=True))
    outputs = tuple(port(text[leaf]) for _, leaf in leaves(result))
    return Contract(tuple(ports), outputs, example, result, ())


@pytest.mark.parametrize(
    ("arguments", "result", "text"),
    [
        ((Argument(A),), B, "float32[N, 5] -> int64[N, 7]"),
        ((), A, "nothing -> float32[N, 5]"),
        (
            (Argument(A), Argument(Literal(16000), "rate"), Argument(Literal(None))),
            TreeSequence("tuple", (A,)),
            "float32[N, 5], rate=16000, None -> (float32[N, 5],)",
        ),
        (
            (Argument(TreeSequence("list", (A, B))),),
            TreeMapping((("x", A), ("rest", TreeSequence("tuple", (B, Opaque("Cache")))))),
            '[float32[N, 5], int64[N, 7]] -> {"x": float32[N, 5], "rest": (int64[N, 7], ?)}',
        ),
    ],
)
def test_a_contract_is_printed_with_its_structure(
    arguments: tuple[Argument, ...], result: Tree, text: str
) -> None:
    assert str(contract(Call(arguments), result)) == text


def test_an_optional_input_is_printed_last_and_its_unknown_dim_is_listed() -> None:
    found = contract(Call((Argument(A),)), A, (1,))
    assert str(found) == "float32[N, 5], float32[N, ?] optional -> float32[N, 5]"
    assert found.unknown_dims == ("mask axis 1: stated as unknown",)
    assert [p.name for p in found.required] == ["input 0"]


def test_a_call_is_accepted_only_if_each_tensor_surely_is() -> None:
    found = contract(Call((Argument(A), Argument(B))), A, (2,))
    assert accepts_call(found, Call((Argument(A), Argument(B))))
    assert not accepts_call(found, Call((Argument(A),)))
    assert not accepts_call(found, Call((Argument(B), Argument(A))))
    assert not accepts_call(found, Call((Argument(A), Argument(B, "ids"))))
    assert not accepts_call(found, Call((Argument(A), Argument(B), Argument(A))))
    assert not accepts_call(found, Call((Argument(A), Argument(B), Argument(A), Argument(A))))


def test_free_dims_are_named_by_convention_and_numbered() -> None:
    used = set[str]()
    image = TensorSpec("float32", (2, 3, 8, 8))
    assert [fresh_name(image, axis, used) for axis in range(4)] == ["N", "C", "H", "W"]
    assert fresh_name(image, 2, used) == "H2"
    assert fresh_name(TensorSpec("int64", (2, 7)), 1, used) == "T"
    assert fresh_name(TensorSpec("float32", (2, 7)), 1, used) == "D"
    assert fresh_name(TensorSpec("float32", (1,) * 7), 6, used) == "D6"
