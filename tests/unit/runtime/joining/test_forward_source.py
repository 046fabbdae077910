"""The TorchScript source of joined forwards, as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.core.blueprint import Branch, Feed, Merge, Parallel, Sequential, Stage
from composecli.core.bridge import Cast, Flatten, Linear, Squeeze
from composecli.core.facts import ArgumentFact
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
)
from composecli.runtime.joining.forward_source import (
    FlatResult,
    Parameter,
    PartForm,
    forward_source,
    joined_signature,
    part_name,
    single_call_source,
)

X = Parameter("x", "Tensor", None)
SPEC = TensorSpec("float32", (2, 3))


def source(*lines: str) -> str:
    return "\n".join([lines[0], *(f"    {line}" for line in lines[1:]), ""])


def test_the_bridge_and_path_of_a_feed_are_in_the_call_of_the_next_part() -> None:
    feed = Feed(path=("features", 0), bridge=(Flatten(1), Cast("float64")))
    assert forward_source(Sequential((Stage(4), Stage(7, (feed,)))), (X,)) == source(
        "def forward(self, x: Tensor):",
        "y0 = self.part_0(x)",
        'y1 = self.part_1(torch.flatten(y0["features"][0], 1).to(torch.float64))',
        "return y1",
    )


def test_generated_layers_are_numbered_through_the_whole_forward() -> None:
    one, other = Linear(1, 3, 4), Linear(-1, 5, 6)
    stages = (
        Stage(0),
        Stage(1, (Feed((0,), None, (one,)), Feed((1,), "mask", (Squeeze(2), other)))),
        Stage(0, (Feed(bridge=(one,)),)),
    )
    assert forward_source(Sequential(stages), (X,)) == source(
        "def forward(self, x: Tensor):",
        "y0 = self.part_0(x)",
        "y1 = self.part_1("
        "torch.movedim(self.bridge_0(torch.movedim(y0[0], 1, -1)), -1, 1).contiguous(),"
        " mask=torch.movedim(self.bridge_1("
        "torch.movedim(torch.squeeze(y0[1], 2), -1, -1)), -1, -1).contiguous())",
        "y2 = self.part_0("
        "torch.movedim(self.bridge_2(torch.movedim(y1, 1, -1)), -1, 1).contiguous())",
        "return y2",
    )


@pytest.mark.parametrize(
    ("merge", "expression"),
    [
        (Merge.CAT, "torch.cat([z0, z1], 2)"),
        (Merge.STACK, "torch.stack([z0, z1], 2)"),
        (Merge.ADD, "z0 + z1"),
        (Merge.MEAN, "(z0 + z1) / 2"),
        (Merge.TUPLE, "(z0, z1)"),
    ],
)
def test_branches_get_the_same_input_and_are_merged(merge: Merge, expression: str) -> None:
    blueprint = Parallel((Branch(0), Branch(1, ("out",), (Cast("float32"),))), merge, 2)
    signature = (X, Parameter("mask", "Optional[Tensor]", "mask"))
    assert forward_source(blueprint, signature) == source(
        "def forward(self, x: Tensor, mask: Optional[Tensor]):",
        "y0 = self.part_0(x, mask=mask)",
        "z0 = y0",
        "y1 = self.part_1(x, mask=mask)",
        'z1 = y1["out"].to(torch.float32)',
        f"return {expression}",
    )


def test_a_model_that_is_used_twice_is_one_part() -> None:
    blueprint = Sequential((Stage(5), Stage(3, (Feed(),)), Stage(5, (Feed(),))))
    assert [part_name(blueprint, model) for model in (5, 3)] == ["part_0", "part_1"]


NESTED = TreeMapping(
    (
        ("logits", SPEC),
        ("loss", Literal(None)),
        ("past", TreeSequence("tuple", (SPEC, Literal(float("inf"))))),
        ("list", TreeSequence("list", (SPEC, Opaque("Cache")))),
        ('a"b', TreeSequence("tuple", ())),
    )
)


def test_a_traced_part_gets_tensors_only_and_its_result_is_rebuilt() -> None:
    flat: dict[KeyPath, FlatResult] = {(): FlatResult(NESTED, 0), ("logits",): FlatResult(SPEC, 3)}
    traced = PartForm(by_position=True, fixed={1: Literal(3), 2: Literal(None)}, flat=flat)
    signature = (X, Parameter("rate", "int", "rate"), Parameter("mask", "Optional[Tensor]", "mask"))
    blueprint = Sequential((Stage(5), Stage(5, (Feed(("logits",)),))))
    changed = replace(traced, fixed={})
    assert forward_source(Sequential((Stage(5),)), signature, {5: traced}) == source(
        "def forward(self, x: Tensor, rate: int, mask: Optional[Tensor]):",
        'assert rate == 3, "it was traced with another value"',
        'assert mask is None, "it was traced with another value"',
        "y0 = self.part_0(x)",
        'return {"logits": y0[0], "loss": None, "past": (y0[1], float(\'inf\'),),'
        ' "list": [y0[2], None], "a\\"b": ()}',
    )
    lines = forward_source(blueprint, (X,), {5: changed}).splitlines()
    assert lines[2] == "    y1 = self.part_0(y0[3])"


def test_a_part_may_be_called_without_gradients() -> None:
    form = PartForm(without_gradients=True)
    assert forward_source(Sequential((Stage(5),)), (X,), {5: form}) == source(
        "def forward(self, x: Tensor):",
        "with torch.no_grad():",
        "    y0 = self.part_0(x)",
        "return y0",
    )


def test_a_single_call_is_annotated_if_it_returns_tensors() -> None:
    signature = (X, Parameter("mask", "Tensor", "mask"))
    both: dict[KeyPath, Tree] = {("logits",): SPEC, (1,): SPEC}
    assert single_call_source(signature, PartForm(), both) == source(
        "def forward(self, x: Tensor, mask: Tensor) -> Tuple[Tensor, Tensor]:",
        "y = self.part(x, mask=mask)",
        'return (y["logits"], y[1],)',
    )
    assert "->" not in single_call_source(signature, PartForm(), {(): NESTED})


def argument(name: str, type_name: str = "Tensor") -> ArgumentFact:
    return ArgumentFact(name, type_name, required=True)


def test_the_signature_has_the_arguments_that_the_call_passes() -> None:
    arguments = (argument("x"), argument("mask", "Optional[Tensor]"), argument("scale", "float"))
    call = Call((Argument(SPEC), Argument(SPEC, "scale")))
    assert joined_signature(arguments, call) == (X, Parameter("scale", "float", "scale"))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("input", "other"), ("input", "other")),
        (("input.1", "x y"), ("input_1", "x_y")),
        (("self", "class"), ("input_0", "input_1")),
        (("a.b", "a_b"), ("a_b", "input_1")),
        (("1x", ""), ("input_0", "input_1")),
    ],
)
def test_names_that_are_no_identifiers_are_replaced(
    names: tuple[str, str], expected: tuple[str, str]
) -> None:
    call = Call((Argument(SPEC), Argument(SPEC)))
    signature = joined_signature(tuple(argument(name) for name in names), call)
    assert tuple(parameter.name for parameter in signature) == expected


def test_positional_arguments_are_counted_without_the_named_ones() -> None:
    call = Call((Argument(SPEC, "y"), Argument(SPEC)))
    signature = joined_signature((argument("x"), argument("y")), call)
    assert [parameter.name for parameter in signature] == ["y", "x"]


def test_a_name_that_the_first_part_does_not_have_is_an_error() -> None:
    with pytest.raises(ValueError, match="takes no argument mask"):
        joined_signature((argument("x"),), Call((Argument(SPEC, "mask"),)))
