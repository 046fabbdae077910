"""Verdicts agree with really running B on what A gives, over every ordered pair of small models."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from composecli import Verdict, check
from tests.models import Argmax, Biased, Shelf, Tied, TwoInputs, TwoOutputs, encoder
from tests.parsing import spec

MODELS: dict[str, tuple[nn.Module, str]] = {
    "linear_10_5": (nn.Linear(10, 5), "scripted"),
    "linear_5_10": (nn.Linear(5, 10), "pickled"),
    "linear_5_1": (nn.Linear(5, 1), "scripted"),
    "linear_64": (nn.Linear(64, 10), "scripted"),
    "double_10_5": (nn.Linear(10, 5).double(), "scripted"),
    "relu": (nn.ReLU(), "scripted"),
    "softmax": (nn.Softmax(-1), "scripted"),
    "flatten": (nn.Flatten(), "scripted"),
    "conv_3_8": (nn.Conv2d(3, 8, 3), "scripted"),
    "conv_8_3": (nn.Conv2d(8, 3, 3, padding=1), "pickled"),
    "conv1d_5_8": (nn.Conv1d(5, 8, 3), "scripted"),
    "encoder": (encoder(), "scripted"),
    "pool": (nn.AdaptiveAvgPool2d(1), "scripted"),
    "norm_8": (nn.BatchNorm2d(8).eval(), "scripted"),
    "layer_norm_5": (nn.LayerNorm(5), "scripted"),
    "embedding": (nn.Embedding(20, 5), "scripted"),
    "argmax": (Argmax(), "scripted"),
    "gru_5": (nn.GRU(5, 10, batch_first=True), "traced"),
    "attention": (nn.TransformerEncoderLayer(10, 2, batch_first=True).eval(), "scripted"),
    "biased": (Biased(), "scripted"),
    "tied": (Tied(), "scripted"),
    "two_in": (TwoInputs(), "scripted"),
    "two_out": (TwoOutputs(), "scripted"),
}
# A size of 1 that is broadcast, or a width that the weights do not have: the pair runs, and the
# verdict is unknown on purpose.
FEW = (
    "linear_10_5", "linear_5_1", "double_10_5", "relu", "conv_3_8", "pool", "embedding", "argmax",
    "gru_5", "biased",
    "two_in", "two_out",
)  # fmt: skip
DOUBTED = {("linear_5_1", "biased"), ("pool", "biased")}


@pytest.fixture(scope="module")
def paths(shelf: Shelf) -> dict[str, str]:
    with warnings.catch_warnings(action="ignore"):
        return {
            n: shelf.save(f"pair_{n}", m, form, (torch.rand(2, 6, 5),))
            for n, (m, form) in MODELS.items()
        }


@pytest.mark.parametrize("producer", FEW)
def test_no_verdict_is_contradicted_by_running_the_pair(
    paths: dict[str, str], producer: str
) -> None:
    assert _contradicted(paths, producer, FEW) == []


@pytest.mark.long
@pytest.mark.parametrize("producer", MODELS)
def test_no_verdict_is_contradicted_over_all_pairs(paths: dict[str, str], producer: str) -> None:
    assert _contradicted(paths, producer, tuple(MODELS)) == []


def _contradicted(paths: dict[str, str], producer: str, consumers: tuple[str, ...]) -> list[str]:
    wrong = list[str]()
    for consumer in consumers:
        report = check(paths[producer], paths[consumer])
        runs = _runs(_load(paths, producer), _load(paths, consumer), report.example)
        called = report.verdict
        agreed = {
            Verdict.COMPATIBLE: runs is True,
            # A pair that fails here may fit at sizes that were not tried.
            Verdict.UNKNOWN: (producer, consumer) in DOUBTED or not runs,
        }
        if not agreed.get(called, runs is False):
            wrong.append(
                f"{producer} -> {consumer}: {called}, and running it {'works' if runs else 'fails'}"
            )
    return wrong


def _load(paths: dict[str, str], name: str) -> Any:
    """Return the model as the file holds it: a scripted pool rejects ranks that eager accepts."""
    if MODELS[name][1] == "pickled":
        return torch.load(paths[name], weights_only=False)
    return torch.jit.load(paths[name])


def _runs(one: Any, other: Any, example: str | None) -> bool | None:
    """Whether the pair runs on the example that the verdict spoke for; None where there is none."""
    if example is None:
        return None
    inputs = list[torch.Tensor]()
    for text in example.replace("], ", "]; ").split("; "):
        tensor = spec(text)
        inputs.append(torch.zeros(tensor.sizes, dtype=getattr(torch, tensor.dtype)))
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        given = one(*inputs)
        try:
            other(*given) if isinstance(given, tuple) else other(given)
        except Exception:
            return False
    return True
