"""Targets: what a MODEL argument names, and what it may not do without trust."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.commands.references import locate
from composecli.commands.requests import Options
from composecli.commands.resolve import identify, identify_all
from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FactoryReference, FileReference, ModelKind
from tests.models import Shelf


class Own(nn.Linear):
    """A class that is not torch's, so that its pickle imports something else."""


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("scripted", ModelKind.TORCHSCRIPT),
        ("exported", ModelKind.EXPORTED),
        ("pickled", ModelKind.PICKLED),
    ],
)
def test_the_kind_follows_from_the_bytes(
    shelf: Shelf, here: Path, form: str, kind: ModelKind
) -> None:
    saved = shelf.save("linear", nn.Linear(10, 5), form, (torch.rand(2, 10),))
    Path("no_suffix").write_bytes(Path(saved).read_bytes())
    target = identify("no_suffix")
    assert target.kind is kind
    assert target.file is not None
    assert (target.name, target.path) == ("no_suffix", "no_suffix")


def test_a_factory_is_named_with_its_weights(here: Path) -> None:
    torch.save(nn.Linear(10, 5).state_dict(), "w.pt")
    target = identify("net:make@w.pt")
    assert target.kind is ModelKind.FACTORY
    assert target.reference == FactoryReference("net", "make", "w.pt")
    assert target.file is None
    assert (target.name, target.path) == ("net:make@w.pt", "w.pt")


def test_an_existing_file_is_never_a_factory(here: Path) -> None:
    assert locate("net:make@w.pt") == FactoryReference("net", "make", "w.pt")
    Path("net:make@w.pt").touch()
    assert locate("net:make@w.pt") == FileReference("net:make@w.pt")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nothing.pt", "CC901"),
        ("w.pt", "CC907"),
        ("net:make@linear.pt", "CC908"),
    ],
)
def test_an_argument_that_is_not_a_model_is_refused(
    shelf: Shelf, here: Path, text: str, code: str
) -> None:
    torch.save(nn.Linear(10, 5).state_dict(), "w.pt")
    Path("linear.pt").write_bytes(Path(shelf.save("linear", nn.Linear(10, 5))).read_bytes())
    with pytest.raises(CouldNotAttempt) as caught:
        identify(text)
    assert caught.value.problem.code == code


def test_a_file_that_runs_code_needs_trust(here: Path) -> None:
    torch.save(Own(10, 5), "own.pt")
    with pytest.raises(CouldNotAttempt) as caught:
        identify("own.pt")
    assert caught.value.problem.code == "CC909"
    with pytest.raises(CouldNotAttempt):
        identify("own.pt", Options(trust=(Trust("other.pt"),)))
    trust = Trust("./own.pt")
    assert identify("own.pt", Options(trust=(trust,))).trust == trust


def test_all_models_of_a_command_share_its_trust(here: Path) -> None:
    torch.save(Own(10, 5), "own.pt")
    torch.save(nn.Linear(10, 5), "linear.pt")
    targets = identify_all(("own.pt", "linear.pt"), Options(trust=(Trust("own.pt"),)))
    assert [target.trust for target in targets] == [Trust("own.pt"), None]
