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

ACTIVATIONS = frozenset(
    (
        *(f"torch.nn.functional.{name}" for name in FUNCTIONAL),
        *(f"torch._C._nn.{name}" for name in NATIVE),
        "torch.nn.functional.gelu",
        "torch.relu",
        "torch._C._VariableFunctions.relu",
        "torch._VariableFunctionsClass.relu",
    )
)
