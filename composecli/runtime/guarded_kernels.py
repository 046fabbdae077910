"""Kernels of PyTorch that trust their arguments, each behind a check of them.

They read or write beyond their tensors if an offset, a length or a size is wrong. PyTorch itself
calls them with arguments that it has checked; a file can call them with any. While the kernels are
guarded, wrong arguments raise an error like those of other ops.

`tests/safety/op_sweep.py` finds the ops of the allow-list that need a guard. PyTorch before 2.9
cannot call a kernel that was replaced, so nothing is guarded there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.library import Library

from composecli.runtime import kernel_checks as checks

# The kernels of the processor, and those that are made of other ops for any device.
CPU = "CPU"
QUANTIZED = "QuantizedCPU"
COMPOSITE = "CompositeImplicitAutograd"


@dataclass(frozen=True)
class Guard:
    """The overloads of an op, and the check of their arguments.

    Without a check, the overloads are those that write to tensors of the caller, and these are
    checked not to share memory with each other or with what is read.
    """

    op: str
    overloads: tuple[str, ...]
    check: checks.Check | None = None
    key: str = CPU


_DEFAULT = ("",)
_WITH_OUT = ("", "out")
GUARDS = (
    Guard("aten::_reshape_alias", _DEFAULT, checks.check_view),
    Guard("aten::as_strided", _DEFAULT, checks.check_view),
    Guard("aten::as_strided_", _DEFAULT, checks.check_view),
    Guard("aten::_reshape_alias", _DEFAULT, checks.check_view, QUANTIZED),
    Guard("aten::as_strided", _DEFAULT, checks.check_view, QUANTIZED),
    Guard("aten::as_strided_", _DEFAULT, checks.check_view, QUANTIZED),
    Guard("aten::_fft_r2c", _WITH_OUT, checks.check_transform),
    Guard("aten::_fft_c2c", _WITH_OUT, checks.check_transform),
    Guard("aten::_fft_c2r", _WITH_OUT, checks.check_inverse_transform),
    Guard("aten::native_batch_norm", _WITH_OUT, checks.check_batch_norm),
    Guard("aten::_native_batch_norm_legit", _WITH_OUT, checks.check_batch_norm),
    Guard("aten::_native_batch_norm_legit", ("no_stats", "no_stats_out"), checks.check_batch_norm),
    Guard("aten::_native_batch_norm_legit_no_training", _WITH_OUT, checks.check_batch_norm),
    Guard("aten::_embedding_bag", _DEFAULT, checks.check_bags),
    Guard("aten::_embedding_bag_forward_only", _DEFAULT, checks.check_bags),
    Guard("quantized::embedding_bag_byte", _DEFAULT, checks.check_offsets),
    Guard("quantized::embedding_bag_4bit", _DEFAULT, checks.check_offsets),
    Guard("aten::_ctc_loss", ("", "Tensor"), checks.check_ctc),
    Guard("aten::_pad_packed_sequence", _DEFAULT, checks.check_packed, COMPOSITE),
    Guard("aten::lstm", ("data",), checks.check_packed_layer, COMPOSITE),
    Guard("aten::gru", ("data",), checks.check_packed_layer, COMPOSITE),
    Guard("aten::rnn_tanh", ("data",), checks.check_packed_layer, COMPOSITE),
    Guard("aten::rnn_relu", ("data",), checks.check_packed_layer, COMPOSITE),
    Guard("aten::lstm", ("input",), checks.check_recurrent, COMPOSITE),
    Guard("aten::gru", ("input",), checks.check_recurrent, COMPOSITE),
    Guard("aten::rnn_tanh", ("input",), checks.check_recurrent, COMPOSITE),
    Guard("aten::rnn_relu", ("input",), checks.check_recurrent, COMPOSITE),
    Guard("aten::rrelu_with_noise", _WITH_OUT, checks.check_noise),
    Guard("aten::rrelu_with_noise_", _DEFAULT, checks.check_noise),
    Guard("aten::mkldnn_rnn_layer", _DEFAULT, checks.check_layer),
    Guard("aten::_fused_moving_avg_obs_fq_helper", _DEFAULT, checks.check_observer),
    Guard("aten::_upsample_bilinear2d_aa", _WITH_OUT, checks.check_resampling),
    Guard("aten::_upsample_bicubic2d_aa", _WITH_OUT, checks.check_resampling),
    Guard("aten::_upsample_lanczos2d_aa", _WITH_OUT, checks.check_resampling),
    # They give their results a size before they read the size of what they are computed from.
    Guard("aten::_linalg_det", ("result",)),
    Guard("aten::_linalg_eigh", ("eigenvalues",)),
    Guard("aten::_linalg_slogdet", ("sign",)),
    Guard("aten::_linalg_solve_ex", ("result",), checks.check_solution),
    Guard("aten::_linalg_svd", ("U",)),
    Guard("aten::geqrf", ("a",)),
    Guard("aten::linalg_eig", ("out",)),
    Guard("aten::linalg_eigvals", ("out",)),
    Guard("aten::linalg_householder_product", ("out",)),
    Guard("aten::linalg_ldl_factor_ex", ("out",)),
    Guard("aten::linalg_lstsq", ("out",)),
    Guard("aten::linalg_lu", ("out",)),
    Guard("aten::linalg_lu_factor_ex", ("out",)),
    Guard("aten::linalg_qr", ("out",)),
    Guard("aten::linalg_solve_triangular", ("out",)),
    Guard("aten::ormqr", ("out",)),
    Guard("aten::triangular_solve", ("X",)),
    Guard("aten::tril", ("out",), checks.check_triangle),
    Guard("aten::triu", ("out",), checks.check_triangle),
)
_active = list[Library]()


@contextmanager
def guarded_kernels() -> Iterator[None]:
    """Guard the kernels of the whole process while the body runs; bodies may be nested."""
    get_kernel = getattr(torch.library, "get_kernel", None)
    if _active or get_kernel is None:
        yield
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            for guard in GUARDS:
                _install(guard, get_kernel)
        yield
    finally:
        while _active:
            _active.pop()._destroy()


def _install(guard: Guard, get_kernel: Callable[[str, str], Any]) -> None:
    """Put a check in front of the kernels of an op."""
    namespace, _, name = guard.op.partition("::")
    for overload in guard.overloads:
        full = f"{name}.{overload}".rstrip(".")
        packet = getattr(getattr(torch.ops, namespace), name, None)
        op = getattr(packet, overload or "default", None)
        if op is None:
            # This PyTorch does not have it.
            continue
        backend = guard.key
        if backend == COMPOSITE:
            # It is the kernel of every device.
            backend = CPU
        original = get_kernel(f"{namespace}::{full}", backend)
        check = guard.check
        if check is None:
            outputs = [argument.name for argument in op._schema.arguments if argument.is_out]
            check = partial(checks.check_outputs, outputs)
        kernel = _guarded(check, op._schema, original)
        library = Library(namespace, "IMPL")
        _active.append(library)
        library.impl(full, kernel, guard.key, with_keyset=True, allow_override=True)


def _guarded(check: checks.Check, schema: Any, original: Any) -> Callable[..., Any]:
    """Return a kernel that checks its arguments, and then calls the one of PyTorch."""
    names = list[str]()
    defaults = dict[str, Any]()
    for argument in schema.arguments:
        names.append(argument.name)
        if argument.has_default_value():
            defaults[argument.name] = argument.default_value

    def kernel(keyset: Any, *args: Any, **kwargs: Any) -> Any:
        """Check the arguments by name; the last ones are left out if they are the defaults."""
        positional = dict(zip(names, args, strict=False))
        check({**defaults, **positional, **kwargs})
        return original.call_boxed(keyset, *args, **kwargs)

    return kernel
