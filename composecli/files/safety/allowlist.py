"""The operators that a file may use without being trusted, by name and for every overload.

An allow-list: what a later PyTorch adds is refused until it stands in `ops.txt`. There stand the operators of torch
2.13 that compute; those that read or write files, reach other processes, or belong to backends and to the inside of
autograd do not.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Objects of C++ that quantised modules hold; any other class of an extension may do anything.
CLASSES = frozenset(
    f"__torch__.torch.classes.{name}"
    for name in (
        "quantized.Conv2dPackedParamsBase", "quantized.Conv3dPackedParamsBase", "quantized.LinearPackedParamsBase",
        "quantized.EmbeddingPackedParamsBase", "rnn.CellParamsBase", "sparse.LinearPackedParamsBase",
    )
)  # fmt: skip


@cache
def allowed() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("ops.txt").read_text().split())
