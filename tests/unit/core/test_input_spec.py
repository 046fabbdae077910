"""Input specs: the values of `--input`."""

from __future__ import annotations

import pytest

from composecli.core.dims import Fixed, Free, Unknown
from composecli.core.input_spec import (
    DeclaredLiteral,
    DeclaredSample,
    DeclaredTensor,
    example_sizes,
    parse_input,
)
from composecli.core.relations import parse_where
from tests.parsing import port

INPUTS = [
    ("1,3,32,32", DeclaredTensor(None, None, (Fixed(1), Fixed(3), Fixed(32), Fixed(32)))),
    ("float32[N,3]", DeclaredTensor(None, "float32", (Free("N"), Fixed(3)))),
    (" ids = int64[1, 16] ", DeclaredTensor("ids", "int64", (Fixed(1), Fixed(16)))),
    ("float32[H>=32]", DeclaredTensor(None, "float32", (Free("H", 32),))),
    ("float32[]", DeclaredTensor(None, "float32", ())),
    ("rate:=16000", DeclaredLiteral("rate", 16000)),
    ("2:rate:=16000", DeclaredLiteral("rate", 16000, 2)),
    ("3:@sample.pt", DeclaredSample("sample.pt", 3)),
    ("2:ids=int64[1,16]", DeclaredTensor("ids", "int64", (Fixed(1), Fixed(16)), 2)),
    (":=0.5", DeclaredLiteral(None, 0.5)),
    ("flag:=true", DeclaredLiteral("flag", True)),
    ("mask:=none", DeclaredLiteral("mask", None)),
    ("mode:=fast", DeclaredLiteral("mode", "fast")),
    ("@sample.pt", DeclaredSample("sample.pt")),
    (
        "float32[N,C,H] where C*H == 12 and H<=C",
        DeclaredTensor(
            None,
            "float32",
            (Free("N"), Free("C"), Free("H")),
            where=parse_where("C*H == 12 and H<=C"),
        ),
    ),
    (
        "x=N,D where D % 4 == 0",
        DeclaredTensor("x", None, (Free("N"), Free("D")), where=parse_where("D % 4 == 0")),
    ),
]
REFUSED = [
    "float33[N]",
    "@",
    "1,x y",
    "float32[?]",
    "",
    "float32[H//2]",
    "1,,3",
    "float32[-1]",
    "N,D where D",
    "N,D where ",
]


@pytest.mark.parametrize(("text", "expected"), INPUTS)
def test_an_input_is_parsed(text: str, expected: object) -> None:
    assert parse_input(text) == expected


@pytest.mark.parametrize("text", REFUSED)
def test_text_that_is_not_an_input_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"dim|dtype|size|file"):
        parse_input(text)


@pytest.mark.parametrize("text", ["float32[N,10", "x=float32[N,10", "float32[N,10]where"])
def test_a_tensor_that_does_not_close_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a tensor: float32\[N,10"):
        parse_input(text)


def test_example_sizes_give_one_size_to_each_name() -> None:
    dims = port("float32[N, T>=20, T>=20, 3]").dims
    assert dims is not None
    assert example_sizes(dims) == (2, 20, 20, 3)
    assert example_sizes(dims, {"N": 7}) == (7, 20, 20, 3)


def test_an_unknown_dim_has_no_example() -> None:
    with pytest.raises(ValueError, match="no example"):
        example_sizes((Unknown("not tried"),))
