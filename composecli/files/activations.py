"""The activation functions that a layer of a pickle may keep: each computes on its tensor alone.

`nn.TransformerEncoderLayer(activation=F.silu)` keeps the function itself. A pickle names it, and
may only keep it where torch.nn's own layers do, see `module_states`.
"""

from __future__ import annotations

# Written in Python.
FUNCTIONAL = (
    "relu", "relu6", "silu", "mish", "elu", "celu", "selu", "leaky_relu", "hardswish",
    "hardsigmoid", "hardtanh", "sigmoid", "tanh", "softsign", "tanhshrink",
)  # fmt: skip
# Built into torch, where their names may be others.
NATIVE = ("gelu", "softplus", "log_sigmoid", "softshrink")
# Functions of the module torch itself.
OF_TORCH = (
    "relu", "tanh", "sigmoid", "selu", "celu", "sin", "cos", "sinc", "atan", "asinh", "erf", "exp",
    "abs", "square",
)  # fmt: skip
# The classes that pickles of several versions of PyTorch find these in.
_CLASSES_OF_TORCH = (
    "torch._C._VariableFunctionsClass",
    "torch._C._VariableFunctions",
    "torch._VariableFunctionsClass",
)


def names_of_torch(function: str) -> tuple[str, ...]:
    """Return the names that pickles have for a function of the module torch."""
    return tuple(f"{owner}.{function}" for owner in _CLASSES_OF_TORCH)


ACTIVATIONS = frozenset(
    (
        *(f"torch.nn.functional.{name}" for name in FUNCTIONAL),
        *(f"torch._C._nn.{name}" for name in NATIVE),
        "torch.nn.functional.gelu",
        "torch.relu",
        *(name for function in OF_TORCH for name in names_of_torch(function)),
    )
)
