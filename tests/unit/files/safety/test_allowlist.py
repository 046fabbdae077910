"""The list of operators that need no trust."""

from __future__ import annotations

import re

import pytest

from composecli.files.safety.allowlist import CLASSES, allowed


@pytest.mark.parametrize("op", ["aten::add", "aten::conv2d", "aten::_softmax", "quantized::linear"])
def test_operators_that_compute_are_allowed(op: str) -> None:
    assert op in allowed()


@pytest.mark.parametrize(
    "op", ["aten::from_file", "aten::save", "c10d::broadcast_", "rpc::rpc_sync"]
)
def test_operators_that_reach_out_are_not(op: str) -> None:
    assert op not in allowed()


def test_every_entry_is_a_name() -> None:
    assert all(re.fullmatch(r"\w+::\w+(\.\w+)*", op) for op in allowed())
    assert all(name.startswith("__torch__.torch.classes.") for name in CLASSES)
