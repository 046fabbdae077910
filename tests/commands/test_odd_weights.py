"""Weights as odd as files have them: each is loaded as PyTorch does, or refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.commands.running import Composecli

FACTORY = "from torch import nn\n\n\ndef make():\n    return nn.Linear(4, 2)\n"
CAST = "in the file and float32 in the module: cast as PyTorch does"
LOADED = "contract: float32[N, 4] -> float32[N, 2]"
REFUSED = "error[CC912]"


def _quantized(weight: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)


# How the weight is stored, and what is said of it.
ODD: dict[str, tuple[Callable[[torch.Tensor], object], tuple[str, ...]]] = {
    "a view with strides": (lambda weight: weight.t().contiguous().t(), (LOADED,)),
    "expanded": (lambda weight: weight[:1].expand(2, 4), (LOADED,)),
    "bfloat16": (lambda weight: weight.bfloat16(), (LOADED, f"weight is bfloat16 {CAST}")),
    "float8": (lambda weight: weight.to(torch.float8_e4m3fn), (LOADED,)),
    "a parameter": (nn.Parameter, (LOADED,)),
    "int8": (lambda weight: weight.to(torch.int8), (LOADED, f"weight is int8 {CAST}")),
    "complex": (lambda weight: weight + 1j, (LOADED, f"weight is complex64 {CAST}")),
    "quantized": (_quantized, (REFUSED, "the module refuses the weights")),
    "on meta": (lambda weight: weight.to("meta"), (REFUSED, "left out and never built: weight")),
    "sparse": (lambda weight: weight.to_sparse(), (REFUSED, "left out and never built: weight")),
    "none": (lambda _: None, (REFUSED, "weight  NoneType in the file")),
    "a number": (lambda _: 3.0, (REFUSED, "weight  float in the file")),
    "without elements": (lambda weight: weight[:0], (REFUSED, "weight  [0, 4] in the file")),
    "a storage": (lambda weight: weight.untyped_storage(), (REFUSED, "weight  TypedStorage")),
}


@pytest.mark.filterwarnings("ignore:.*(complex|quantize|TypedStorage)")
@pytest.mark.parametrize("kind", ODD)
def test_odd_weights_load_as_in_pytorch_or_are_refused(
    composecli: Composecli, here: Path, kind: str
) -> None:
    (here / "net.py").write_text(FACTORY)
    store, words = ODD[kind]
    torch.save({"weight": store(torch.ones(2, 4)), "bias": torch.ones(2)}, "odd.pth")
    ran = composecli("inspect", "net.py:make@odd.pth")
    text = " ".join((ran.out + ran.err).split())
    for word in words:
        assert " ".join(word.split()) in text
    assert ran.code == {LOADED: 0, REFUSED: 3}[words[0]]
    joined = composecli("join", "net.py:make@odd.pth", "torch.nn:ReLU", "-o", "both.pt")
    assert joined.code == ran.code, joined.err
