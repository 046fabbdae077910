"""The operators that a file may use without being trusted: each by name, with all its overloads.

`ops.txt` lists the operators of PyTorch 2.13 that compute. It leaves out those that read or write
files, reach other processes, or belong to backends or to autograd's internals. Those of a later
PyTorch are refused until they are listed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

# C++ objects of quantised modules; a class of any other extension may run any code.
CLASSES = frozenset(
    (
        "__torch__.torch.classes.quantized.Conv2dPackedParamsBase",
        "__torch__.torch.classes.quantized.Conv3dPackedParamsBase",
        "__torch__.torch.classes.quantized.LinearPackedParamsBase",
        "__torch__.torch.classes.quantized.EmbeddingPackedParamsBase",
        "__torch__.torch.classes.rnn.CellParamsBase",
        "__torch__.torch.classes.sparse.LinearPackedParamsBase",
    )
)


@cache
def allowed() -> frozenset[str]:
    """Return the names of the operators, such as `aten::add`."""
    return frozenset(Path(__file__).with_name("ops.txt").read_text().split())
