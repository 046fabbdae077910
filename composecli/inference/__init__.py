"""Infer the contract of a model: its inputs and outputs.

`infer` has two phases, and runs forwards in both:

1. Search (`search`). Candidates (`candidates`) come from the user, the file, or the first layers.
   A rejected candidate is repaired (`repairs`, `size_solver`) until the model accepts one call.
2. Generalize (`generalize`). Every axis of that call is varied (`free_dims`): axes that must change
   together are grouped (`grouping`, `ties`, `products`), the range of each group is found
   (`bounds`), limits that another input causes are withdrawn (`borrowed_limits`), and the output
   sizes are expressed in terms of the input sizes (`output_dims`, `size_rules`). Axes are related
   by their product (`relate`), and a model that flattens them is tried at other ranks
   (`flattening`). One that keeps every shape (`shape_preserving`) needs none of this.

What an op's weight implies for its input is known in one place, `parameter_ops`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from composecli.inference.contract_inference import infer
    from composecli.inference.hints import Hints
    from composecli.inference.result import Found, NotFound

__all__ = ["Found", "Hints", "NotFound", "infer"]

# Imported when first used: the command line needs only the default budget.
_HOMES = {
    "Found": "result",
    "Hints": "hints",
    "NotFound": "result",
    "infer": "contract_inference",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
