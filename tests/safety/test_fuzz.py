"""A short run of the fuzzer, and what longer ones found."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.core.errors import Problem
from composecli.files.sniff import sniff
from tests.safety.fixtures import rewritten, saved
from tests.safety.fuzz import fuzz


def test_mutated_files_are_answered_or_refused() -> None:
    outcomes, wrong = fuzz(120, 7)
    assert wrong == []
    assert outcomes["found"]
    assert outcomes["CC904"]


def test_a_module_whose_attributes_have_no_names(tmp_path: Path) -> None:
    """Its state has a list as a key, which no dict can have."""
    inner = b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}(]K\x01X\x08\x00\x00\x00_modules}ub."
    (tmp_path / "model.pt").write_bytes(rewritten(saved({"a": 1}), {"data.pkl": inner}))
    assert not isinstance(sniff(str(tmp_path / "model.pt")), Problem)


@pytest.mark.parametrize(
    ("seed", "number", "what"),
    [
        (1, 5876, "no buffers"),
        (1, 3364, "a type for hooks"),
        (1, 8033, "a guard that is true"),
        (11, 3208, "a memo that is not there"),
    ],
)
def test_what_the_fuzzer_found(seed: int, number: int, what: str) -> None:
    """Files that ended in a traceback once."""
    _, wrong = fuzz(1, seed, first=number)
    assert wrong == [], what
