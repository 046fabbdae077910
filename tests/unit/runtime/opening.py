"""Requests to open saved models, and what their tensors hold once they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from composecli.core.model_ref import FileReference, ModelKind
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest, Training

KINDS = {
    "scripted": ModelKind.TORCHSCRIPT,
    "traced": ModelKind.TORCHSCRIPT,
    "exported": ModelKind.EXPORTED,
    "pickled": ModelKind.PICKLED,
}


def open_request(path: str | Path, form: str, **changes: Any) -> OpenRequest:
    """A request to open a file on the CPU as it was saved, without trust."""
    options: dict[str, Any] = {
        "device": "cpu", "training": Training.SAVED, "trusted": False, "key": None, **changes,
    }  # fmt: skip
    return OpenRequest(FileReference(str(path)), KINDS[form], **options)


def state(model: Model) -> dict[str, torch.Tensor]:
    """Copies of all tensors of a model, as they are now."""
    return {name: tensor.clone() for name, tensor in model.module.state_dict().items()}


def same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two models hold the same values under the same names."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
