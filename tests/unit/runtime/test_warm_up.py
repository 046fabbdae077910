"""Every op that runs on this machine also runs while no file can be opened, and in the lock."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from composecli.runtime.sandbox import apply_sandbox, forbid_opening_files
from composecli.runtime.tensors import dtype_of
from composecli.runtime.warm_up import read_system_files
from composecli.workers.protocol import SandboxRequest
from tests.commands.running import environment

Op = Callable[[], object]

FLOATS = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128")
FLOAT8S = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
# To ask torch for its engines would read the files.
ENGINES = ("fbgemm", "x86", "onednn", "qnnpack")
INTEGERS = ("int8", "uint8", "int16", "int32", "int64")


def _float_ops(dtype: torch.dtype) -> dict[str, Op]:
    """Return an op for each library for floats: BLAS, oneDNN, NNPACK, FFT, LAPACK.

    Nothing may run before the op is called: torch reads its files at the first op.
    """

    def zeros(*sizes: int) -> torch.Tensor:
        return torch.zeros(sizes, dtype=dtype)

    return {
        "cast": lambda: torch.zeros(2, 4).to(dtype).to(torch.complex64),
        "linear": lambda: nn.functional.linear(zeros(2, 4), zeros(5, 4), zeros(5)),
        "matmul": lambda: zeros(200, 200) @ zeros(200, 200),
        "bmm": lambda: torch.bmm(zeros(2, 3, 4), zeros(2, 4, 3)),
        "conv1d": lambda: nn.functional.conv1d(zeros(2, 3, 8), zeros(5, 3, 3)),
        "conv2d": lambda: nn.functional.conv2d(zeros(2, 3, 8, 8), zeros(5, 3, 3, 3)),
        "conv2d of a batch": lambda: nn.functional.conv2d(zeros(16, 3, 32, 32), zeros(5, 3, 3, 3)),
        "depthwise conv": lambda: nn.functional.conv2d(
            zeros(2, 3, 8, 8), zeros(3, 1, 3, 3), groups=3
        ),
        "transposed conv": lambda: nn.functional.conv_transpose2d(
            zeros(2, 3, 8, 8), zeros(3, 4, 3, 3)
        ),
        "fft": lambda: torch.fft.fft(zeros(8)),
        "svd": lambda: torch.linalg.svd(zeros(3, 5)),
        "softmax": lambda: zeros(3, 5).softmax(-1),
        "attention": lambda: nn.functional.scaled_dot_product_attention(*[zeros(2, 2, 5, 4)] * 3),
        "random": lambda: torch.rand(100, dtype=dtype),
    }


def _module_ops(dtype: torch.dtype) -> dict[str, Op]:
    """Return layers with kernels of their own."""

    def zeros(*sizes: int) -> torch.Tensor:
        return torch.zeros(sizes, dtype=dtype)

    return {
        "batch norm": lambda: nn.BatchNorm2d(3).to(dtype)(zeros(2, 3, 4, 4)),
        "lstm": lambda: nn.LSTM(8, 4).to(dtype)(zeros(3, 2, 8)),
        "encoder": lambda: nn.TransformerEncoderLayer(8, 2).to(dtype).eval()(zeros(3, 2, 8)),
        "embedding bag": lambda: nn.EmbeddingBag(9, 4).to(dtype)(torch.zeros(2, 3).long()),
    }


def _quantized_ops(engine: str) -> dict[str, Op]:
    """Return quantized ops, which run in the given engine."""

    def quantized(*sizes: int, dtype: torch.dtype = torch.quint8) -> torch.Tensor:
        return torch.quantize_per_tensor(torch.zeros(sizes), 0.1, 0, dtype)

    def dynamic_linear() -> object:
        torch.backends.quantized.engine = engine
        packed = torch.ops.quantized.linear_prepack(quantized(5, 4, dtype=torch.qint8), None)
        return torch.ops.quantized.linear_dynamic(torch.zeros(2, 4), packed)

    def linear() -> object:
        torch.backends.quantized.engine = engine
        packed = torch.ops.quantized.linear_prepack(quantized(5, 4, dtype=torch.qint8), None)
        return torch.ops.quantized.linear(quantized(2, 4), packed, 0.1, 0)

    def conv() -> object:
        torch.backends.quantized.engine = engine
        weight = quantized(5, 4, 3, 3, dtype=torch.qint8)
        packed = torch.ops.quantized.conv2d_prepack(weight, None, [1, 1], [0, 0], [1, 1], 1)
        return torch.ops.quantized.conv2d(quantized(2, 4, 8, 8), packed, 0.1, 0)

    def half_linear() -> object:
        torch.backends.quantized.engine = engine
        packed = torch.ops.quantized.linear_prepack_fp16(torch.zeros(5, 4), None)
        return torch.ops.quantized.linear_dynamic_fp16(torch.zeros(2, 4), packed)

    return {
        "dynamic linear": dynamic_linear,
        "linear": linear,
        "conv": conv,
        "float16 linear": half_linear,
    }


def _cast(dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(4).to(dtype).float()


def _matmul(dtype: torch.dtype) -> torch.Tensor:
    return torch.ones(3, 4, dtype=dtype) @ torch.ones(4, 3, dtype=dtype)


def all_ops() -> dict[str, Op]:
    """Return one small op for every dtype and every engine of this build of torch."""
    ops = dict[str, Op]()
    for dtype in FLOATS:
        for name, op in {**_float_ops(dtype_of(dtype)), **_module_ops(dtype_of(dtype))}.items():
            ops[f"{name} {dtype}"] = op
    for dtype in FLOAT8S:
        ops[f"cast {dtype}"] = partial(_cast, dtype_of(dtype))
    for dtype in INTEGERS:
        ops[f"matmul {dtype}"] = partial(_matmul, dtype_of(dtype))
    for engine in ENGINES:
        for name, op in _quantized_ops(engine).items():
            ops[f"{name} {engine}"] = op
    ops["oneDNN tensor"] = lambda: torch.zeros(2, 4).to_mkldnn().to_dense()
    ops["sparse matmul"] = lambda: torch.sparse.mm(torch.eye(3).to_sparse(), torch.eye(3))
    return ops


def _outcome(op: Op) -> str:
    try:
        with torch.no_grad():
            op()
    except (RuntimeError, NotImplementedError) as error:
        return str(error).partition("\n")[0]
    return "runs"


def main() -> None:
    """Print the outcome of each op, in a fork of a process in which torch has run nothing."""
    import os
    import warnings

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    mode = sys.argv[1]
    for name, op in all_ops().items():
        if os.fork():
            os.wait()
            continue
        if mode != "free":
            read_system_files()
        if mode == "locked":
            apply_sandbox(SandboxRequest((), (), None, 60.0, files=True))
        if mode == "no files":
            with forbid_opening_files():
                outcome = _outcome(op)
        else:
            outcome = _outcome(op)
        os.write(1, f"{name}: {outcome}\n".encode())
        os._exit(0)


@pytest.mark.skipif(sys.platform != "linux", reason="files are forbidden on Linux only")
def test_each_op_first_used_while_files_are_forbidden_does_as_without() -> None:
    outcomes = list[str]()
    for mode in ("free", "no files", "locked"):
        command = [sys.executable, "-m", "tests.unit.runtime.test_warm_up", mode]
        ran = subprocess.run(
            command, capture_output=True, text=True, env=environment(), timeout=120, check=True
        )
        outcomes.append(ran.stdout)
    free, without_files, locked = outcomes
    assert "linear float16: runs" in free
    assert free.count(": runs") > 100
    assert without_files == free
    assert locked == free


if __name__ == "__main__":
    main()
