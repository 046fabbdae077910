"""A short run of the fuzzer, and files that longer runs found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from torch import nn

from composecli.core.errors import Problem
from composecli.files.sniff import sniff
from tests.safety.fixtures import rewritten, saved
from tests.safety.fuzz import Fuzzer, fuzz, programs, scripts
from tests.safety.mutations import mutate_old_format, mutate_program
from tests.safety.script_mutations import mutate_script


def test_mutated_files_are_analysed_or_refused() -> None:
    outcomes, failures = fuzz(120, 7)
    assert failures == []
    assert outcomes["found"]
    assert outcomes["CC904"]


def test_mutated_scripts_are_analysed_or_refused() -> None:
    outcomes, failures = fuzz(150, 7, make_bases=scripts, mutation=mutate_script)
    assert failures == []
    assert outcomes["found"]
    assert outcomes["CC926"]


def test_mutated_programs_are_analysed_or_refused() -> None:
    outcomes, failures = fuzz(60, 3, make_bases=programs, mutation=mutate_program)
    assert failures == []
    assert outcomes["CC926"]
    assert outcomes["CC904"]


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.Sequential(nn.LSTM(3, 2))])
def test_mutated_files_in_the_old_format_are_analysed_or_refused(
    tmp_path: Path, module: nn.Module
) -> None:
    data = saved({"model": module, "epoch": 3}, _use_new_zipfile_serialization=False)
    fuzzer = Fuzzer(tmp_path)
    outcomes = Counter[str]()
    try:
        for number in range(60):
            mutated = mutate_old_format(data, Random(number), str(fuzzer.mark))
            outcome, failure = fuzzer.attempt(mutated)
            assert not failure, (number, mutated.description)
            outcomes[outcome] += 1
    finally:
        fuzzer.close()
    assert outcomes["found"]
    assert outcomes["CC904"]


def test_module_state_with_an_unhashable_key_is_not_a_problem(tmp_path: Path) -> None:
    """The pickle's state has a list as a key, which a dict cannot have."""
    inner = b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}(]K\x01X\x08\x00\x00\x00_modules}ub."
    (tmp_path / "model.pt").write_bytes(rewritten(saved({"a": 1}), {"data.pkl": inner}))
    assert not isinstance(sniff(str(tmp_path / "model.pt")), Problem)


@pytest.mark.parametrize(
    ("seed", "number", "cause"),
    [
        (1, 5876, "no buffers"),
        (1, 3364, "a type in place of the hooks"),
        (1, 8033, "a guard that is the literal true"),
        (11, 3208, "a reference to a missing memo entry"),
    ],
)
def test_files_that_once_ended_in_a_traceback(seed: int, number: int, cause: str) -> None:
    _, failures = fuzz(1, seed, first=number)
    assert failures == [], cause
