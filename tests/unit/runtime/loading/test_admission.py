"""Admission: what may be loaded, and that exactly the bytes that were checked are loaded."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.runtime.loading.admission import admit, admit_copy, no_scan
from composecli.runtime.loading.torchscript_scan import unsafe_ops
from composecli.workers.protocol import OpenRequest
from tests.models import Shelf
from tests.unit.runtime.opening import open_request

BOTH = (admit, admit_copy)


class Own(nn.Linear):
    """A class that torch.nn does not have."""


class ReadsAFile(nn.Module):
    """Scripted, it holds an op that is not on the allowlist."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("weights.bin", False, 3)


def refusal(
    admission: Callable[..., Any], request: OpenRequest, scan: Callable[..., Any] = no_scan
) -> Problem:
    with pytest.raises(CouldNotAttempt) as raised, admission(request, scan):
        pass
    return raised.value.problem


@pytest.mark.parametrize("admission", BOTH)
def test_a_missing_file_is_a_problem(tmp_path: Path, admission: Callable[..., Any]) -> None:
    problem = refusal(admission, open_request(tmp_path / "none.pt", "pickled"))
    assert problem.rule == Rule.NO_SUCH_FILE
    assert problem.where == str(tmp_path / "none.pt")


@pytest.mark.parametrize("admission", BOTH)
def test_a_truncated_archive_is_a_problem(
    tmp_path: Path, shelf: Shelf, admission: Callable[..., Any]
) -> None:
    whole = Path(shelf.save("admission_linear", nn.Linear(3, 2), "pickled")).read_bytes()
    path = tmp_path / "model.pt"
    path.write_bytes(whole[:-100])
    problem = refusal(admission, open_request(path, "pickled"))
    assert problem.rule == Rule.TRUNCATED_ARCHIVE
    assert problem.where == str(path)


@pytest.mark.parametrize("admission", BOTH)
def test_a_file_of_another_kind_than_requested_has_changed(
    shelf: Shelf, admission: Callable[..., Any]
) -> None:
    path = shelf.save("admission_linear", nn.Linear(3, 2), "pickled")
    assert refusal(admission, open_request(path, "scripted")).rule == Rule.FILE_CHANGED


@pytest.mark.parametrize("admission", BOTH)
def test_a_class_that_is_not_trusted_is_refused_unless_the_file_is_trusted(
    tmp_path: Path, admission: Callable[..., Any]
) -> None:
    path = tmp_path / "model.pt"
    torch.save(Own(3, 2), path)
    problem = refusal(admission, open_request(path, "pickled"))
    assert problem.rule == Rule.IMPORTS_NOT_TRUSTED
    assert problem.where == str(path)
    with admission(open_request(path, "pickled", trusted=True), no_scan) as admitted:
        assert admitted is not None


@pytest.mark.parametrize("admission", BOTH)
def test_what_the_scan_reports_is_refused_unless_the_op_is_allowed(
    shelf: Shelf, admission: Callable[..., Any]
) -> None:
    path = shelf.save("admission_file", ReadsAFile())
    problem = refusal(admission, open_request(path, "scripted"), unsafe_ops)
    assert problem.rule == Rule.PROGRAM_NOT_TRUSTED
    assert "aten::from_file" in problem.notes[0]
    allowed = open_request(path, "scripted", allowed_ops=("aten::from_file",))
    with admission(allowed, unsafe_ops) as admitted:
        assert admitted is not None


def test_only_the_file_with_the_trusted_hash_is_copied(shelf: Shelf) -> None:
    path = shelf.save("admission_linear", nn.Linear(3, 2), "pickled")
    actual = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    problem = refusal(admit_copy, open_request(path, "pickled", trusted=True, sha256="0" * 64))
    assert problem.rule == Rule.NOT_THE_FILE_THAT_IS_TRUSTED
    assert problem.where == path
    assert f"found    sha256:{actual}" in problem.notes
    with admit_copy(open_request(path, "pickled", trusted=True, sha256=actual), no_scan) as copy:
        assert copy.read_bytes() == Path(path).read_bytes()


def test_the_copy_stays_as_it_was_checked_and_is_removed(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "model.pt"
    content = Path(shelf.save("admission_linear", nn.Linear(3, 2), "pickled")).read_bytes()
    path.write_bytes(content)
    with admit_copy(open_request(path, "pickled"), no_scan) as copy:
        path.write_bytes(pickle.dumps("another file"))
        assert copy.read_bytes() == content
    assert not copy.exists()


def test_an_archive_keeps_the_members_that_were_checked(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "model.pt"
    content = Path(shelf.save("admission_linear", nn.Linear(3, 2), "pickled")).read_bytes()
    path.write_bytes(content)
    with admit(open_request(path, "pickled"), no_scan) as archive:
        checked = archive.read("data.pkl")
        path.write_bytes(content.replace(b"Linear", b"Lineal"))
        assert archive.read("data.pkl") == checked
