"""Arguments have the name of the call, else that of the signature."""

from __future__ import annotations

import pytest

from composecli.core.facts import ArgumentFact
from composecli.core.pytree import Argument, Call
from composecli.inference.hints import argument_name
from tests.parsing import spec
from tests.unit.inference.builders import facts


@pytest.mark.parametrize(("path", "name"), [((0,), "ids"), ((1, "key"), "mask"), ((2,), None)])
def test_name_is_that_of_the_call_or_of_the_signature(
    path: tuple[int | str, ...], name: str | None
) -> None:
    tensor = spec("int64[2, 8]")
    tried = Call((Argument(tensor), Argument(tensor, "mask"), Argument(tensor)))
    arguments = (
        ArgumentFact("ids", "Tensor", required=True),
        ArgumentFact("other", "Tensor", required=False),
    )
    assert argument_name(facts(arguments=arguments), tried, path) == name
