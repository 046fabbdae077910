"""No allowed op leaves the memory of its tensors, whatever its arguments: a sample of the sweep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from composecli.files.safety.allowlist import allowed
from tests.commands.running import Installed
from tests.safety.fixtures import scripted
from tests.safety.op_calls import CALLS
from tests.safety.op_sweep import sweep_op

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="pages are protected by calls of Linux"),
    pytest.mark.skipif(
        not hasattr(torch.library, "get_kernel"), reason="this PyTorch cannot guard kernels"
    ),
]
SAMPLE = (
    "aten::_reshape_alias",
    "aten::_embedding_bag",
    "aten::_fft_c2r",
    "aten::_native_batch_norm_legit_no_training",
    "aten::gather",
    "aten::as_strided_scatter",
)


@pytest.mark.parametrize("op", SAMPLE)
def test_an_op_stays_in_its_memory(op: str) -> None:
    outcome = sweep_op(op, 40)
    assert not outcome.ending, outcome
    assert outcome.returned


def test_the_sweep_sees_an_op_that_leaves_its_memory() -> None:
    outcome = sweep_op("aten::_reshape_alias", 40, guarded=False)
    assert outcome.ending == "SIGSEGV"
    assert "_reshape_alias" in outcome.call


@pytest.mark.parametrize("op", ["aten::set_", "aten::segment_reduce", "aten::lu_unpack"])
def test_unchecked_ops_are_not_allowed(op: str) -> None:
    assert op not in allowed()


OVERWRITING = """class Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.eye(24).expand(24, 24, 24, 24).contiguous()
        torch.linalg.eigh(y, eigvals=y, eigvecs=torch.empty(0))
        return x + y.sum()
"""


@pytest.mark.parametrize("isolation", ["best", "none"])
def test_a_model_writes_no_result_over_its_input(
    isolation: str, tmp_path: Path, installed: Installed
) -> None:
    """In PyTorch, eigenvalues that are written over their matrices break the heap."""
    path = tmp_path / "model.pt"
    path.write_bytes(scripted(OVERWRITING, tmp_path / "unused"))
    ran = installed("inspect", path, "--input", "1,3", "--isolation", isolation)
    assert ran.code == 3, ran.err
    assert "an output that is also read" in " ".join((ran.out + ran.err).split())


@pytest.mark.long
@pytest.mark.parametrize("op", sorted(allowed()))
def test_every_allowed_op_stays_in_its_memory(op: str) -> None:
    calls = 150
    if op in CALLS:
        calls = 300
    outcome = sweep_op(op, calls)
    assert not outcome.ending, outcome
