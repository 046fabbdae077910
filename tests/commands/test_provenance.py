"""Provenance: where a joined file comes from."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import torch
from torch import nn

from tests.commands.running import Composecli
from tests.models import Shelf
from tests.schema import validator


def test_provenance_is_in_the_file_and_in_inspect(
    composecli: Composecli, shelf: Shelf, here: Path
) -> None:
    a, b = shelf.save("linear", nn.Linear(10, 5)), shelf.save("narrow", nn.Linear(3, 2))
    composecli("join", a, b, "--bridge", "linear", "--seed", "7", "-o", "both.pt")
    with zipfile.ZipFile("both.pt") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/extra/composecli.json"))
        facts = json.loads(archive.read(name))
    validator("provenance").validate(facts)
    assert facts["seed"] == 7
    assert facts["bridges"] == [
        [{"type": "Linear", "axis": 1, "before": 5, "after": 3, "dtype": "float32"}]
    ]
    assert [len(entry["sha256"]) for entry in facts["inputs"]] == [64, 64]
    assert facts["torch"] == torch.__version__.split("+")[0] or facts["torch"] == torch.__version__
    shown = composecli("inspect", "both.pt")
    assert "provenance: joined sequential by composecli, seed 7" in shown.out
