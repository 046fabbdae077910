"""Lazy loading: which files are loaded without their tensors, and the notes about the others."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from torch import nn

from composecli.core.errors import CouldNotAttempt
from composecli.files.archive import Archive
from composecli.runtime.loading.admission import no_scan
from composecli.runtime.loading.lazy import ArchiveLoader, Attempt, NotAModel, NotLazy
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest
from tests.models import Shelf
from tests.unit.runtime.opening import open_request


def loader(attempt: Attempt) -> ArchiveLoader:
    """A loader of pickled modules whose first step returns `attempt`."""

    def open_lazily(_request: OpenRequest, archive: Archive) -> Attempt:
        assert "data.pkl" in archive.names
        return attempt

    def read_whole(request: OpenRequest, copy: Path) -> Model:
        assert copy.read_bytes() == Path(request.path).read_bytes()
        return Model(nn.Identity(), request, (), {}, ("a note of its own",))

    return ArchiveLoader(no_scan, open_lazily, read_whole)


@pytest.fixture
def request_(shelf: Shelf) -> OpenRequest:
    return open_request(shelf.save("lazy_linear", nn.Linear(3, 2), "pickled"), "pickled")


def test_a_model_without_its_tensors_is_preferred(request_: OpenRequest) -> None:
    model = Model(nn.Linear(3, 2), request_, (), {})
    assert loader(model).load(request_) is model


def test_a_note_states_why_the_tensors_were_read(request_: OpenRequest) -> None:
    model = loader(NotLazy("they are stored in an unusual way")).load(request_)
    assert isinstance(model.module, nn.Identity)
    assert model.notes == (
        "a note of its own",
        "all its tensors were read: they are stored in an unusual way",
    )


def test_a_file_without_a_module_gets_no_note(request_: OpenRequest) -> None:
    assert loader(NotAModel()).load(request_).notes == ("a note of its own",)


def test_a_file_that_is_trusted_by_its_hash_is_loaded_whole(shelf: Shelf) -> None:
    path = shelf.save("lazy_linear", nn.Linear(3, 2), "pickled")
    sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    request = open_request(path, "pickled", trusted=True, sha256=sha256)
    model = loader(Model(nn.Linear(3, 2), request, (), {})).load(request)
    assert isinstance(model.module, nn.Identity)


def test_a_file_that_is_not_admitted_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04 and no archive")
    request = open_request(path, "pickled")
    any_loader = loader(NotAModel())
    for step in (any_loader.load, any_loader.load_whole):
        with pytest.raises(CouldNotAttempt):
            step(request)
