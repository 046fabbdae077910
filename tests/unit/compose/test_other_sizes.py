"""The calls at which a joined file is verified differ on every free axis."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.compose.other_sizes import free_names, with_other_sizes
from composecli.core.contract import Contract
from composecli.core.pytree import Argument, Call
from tests.parsing import port, spec


@pytest.mark.parametrize(
    ("ports", "example", "names", "changed"),
    [
        (["float32[N, 3]", "float32[N, 5]"], ["2, 3", "2, 5"], "N", "float32[3, 3], float32[3, 5]"),
        (
            ["float32[N, 3]", "float32[M, 5]"],
            ["2, 3", "4, 5"],
            "NM",
            "float32[3, 3], float32[5, 5]",
        ),
        (["float32[N, T, 16]"], ["2, 5, 16"], "NT", "float32[3, 6, 16]"),
        (
            ["float32[N, 2*T]", "float32[N, T]"],
            ["2, 10", "2, 5"],
            "NT",
            "float32[3, 12], float32[3, 6]",
        ),
        (["float32[2, H%4 in {0, 3}]"], ["2, 64"], "H", "float32[2, 67]"),
        (["float32[2, H%16==0]"], ["2, 64"], "H", "float32[2, 80]"),
        (["float32[N<=2, 3]"], ["2, 3"], "N", "float32[1, 3]"),
        (["float32[2, 3]"], ["2, 3"], "", "float32[2, 3]"),
        (["float32[*]"], ["2, 3"], "N", "float32[3, 3]"),
    ],
)
def test_every_free_axis_gets_another_size(
    ports: list[str], example: list[str], names: str, changed: str
) -> None:
    inputs = []
    for number, text in enumerate(ports):
        dims = None if "[*]" in text else port(text).dims
        inputs.append(replace(port(text.replace("[*]", "[]")), path=(number,), dims=dims))
    call = Call(tuple(Argument(spec(f"float32[{sizes}]")) for sizes in example))
    contract = Contract(tuple(inputs), (), call, spec("float32[1]"), ())
    assert free_names(contract, call) == tuple(names)
    assert str(with_other_sizes(contract, call, names)) == changed
