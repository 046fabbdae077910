"""The telling line of an error: real errors of torch, and texts that are like them."""

from __future__ import annotations

import functools
import io
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from composecli.runtime.error_text import telling_line


class Guarded(nn.Module):
    """Refuses inputs in every way that TorchScript has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() > 2:
            raise ValueError("rank {}\nis too high".format(x.dim()))  # noqa: UP032
        assert x.size(0) != 7, "seven is bad"
        assert x.size(0) != 8
        return self.fc(x)


class Starred(nn.Module):
    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return args[0]


class Partial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act = functools.partial(nn.functional.relu)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)


class WithLambda(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.act: Any = lambda x: x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)


class Misled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scaled(x, "a")  # type: ignore[arg-type]

    def scaled(self, x: torch.Tensor, n: int) -> torch.Tensor:
        return x * n


class Untyped(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, object]:
        return x, object()


def loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def scripted(rows: int, *sizes: int) -> Callable[[], object]:
    module = loaded(torch.jit.script(Guarded()))
    return lambda: module(torch.rand(rows, *sizes))


def chained() -> None:
    try:
        torch.rand(2, 3) @ torch.rand(4, 5)
    except RuntimeError as error:
        raise ValueError("layer 3 failed") from error


def replicated() -> None:
    try:
        torch.rand(2, 3) @ torch.rand(4, 5)
    except RuntimeError:
        text = traceback.format_exc()
    raise RuntimeError(f"Caught RuntimeError in replica 0.\nOriginal {text}")


MATMUL = "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"
ERRORS: dict[str, tuple[Callable[[], object], str]] = {
    "an op in TorchScript": (
        scripted(2, 3),
        "mat1 and mat2 shapes cannot be multiplied (2x3 and 10x5)",
    ),
    "an op in a trace": (
        lambda: loaded(torch.jit.trace(Guarded(), torch.rand(2, 10)))(torch.rand(2, 3)),
        "mat1 and mat2 shapes cannot be multiplied (2x3 and 10x5)",
    ),
    "raise in TorchScript": (scripted(2, 3, 4), "ValueError: rank 3"),
    "an assertion in TorchScript": (scripted(7, 10), "AssertionError: seven is bad"),
    "an assertion without a message": (scripted(8, 10), "AssertionError:"),
    "an op without a kernel for the device": (
        lambda: torch.ops.aten.mkldnn_linear(torch.rand(2, 2), torch.rand(2, 2)),
        "Could not run 'aten::mkldnn_linear' with arguments from the 'CPU' backend",
    ),
    "an op without a meta kernel": (
        lambda: torch.eye(2, device="meta").to_sparse(),
        (
            "aten::_to_sparse: attempted to run this operator with Meta tensors,"
            " but there was no fake impl or Meta kernel registered"
        ),
    ),
    "wrong keys": (
        lambda: nn.Linear(2, 3).load_state_dict({"weight": torch.rand(3, 2)}),
        'Error(s) in loading state_dict for Linear: Missing key(s) in state_dict: "bias".',
    ),
    "*args": (
        lambda: torch.jit.script(Starred()),
        (
            "Compiled functions can't take variable number of arguments or use keyword-only"
            " arguments with defaults"
        ),
    ),
    "a partial": (
        lambda: torch.jit.script(Partial()),
        (
            "Module 'Partial' has no attribute 'act' (This attribute exists on the Python module,"
            " but we failed to convert Python type: 'functools.partial' to a TorchScript type)"
        ),
    ),
    "a lambda": (lambda: torch.jit.script(WithLambda()), "Expected a single top-level function"),
    "wrong types": (
        lambda: torch.jit.script(Misled()),
        "Expected a value of type 'int' for argument 'n' but instead found type 'str'",
    ),
    "a result that cannot be traced": (
        lambda: torch.jit.trace(Untyped(), torch.rand(2, 2)),
        (
            "Only tensors and (possibly nested) tuples of tensors, lists, or dicts are supported as"
            " inputs or outputs of traced functions, but instead got value of type object"
        ),
    ),
    "a chain of errors": (chained, f"layer 3 failed (caused by RuntimeError: {MATMUL})"),
    "a traceback in the message": (replicated, MATMUL),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ERRORS)
def test_the_telling_line_of_an_error_of_torch(name: str) -> None:
    cause, line = ERRORS[name]
    with pytest.raises(Exception) as raised:  # noqa: PT011
        cause()
    assert telling_line(raised.value).startswith(line.removesuffix("."))


EINOPS = """ Error while processing rearrange-reduction pattern "b c -> c b".
 Input tensor shape: torch.Size([2]). Additional info: {}.
 Expected 2 dimensions, got 1"""


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("sizes differ", "sizes differ"),
        ("sizes differ\nin two lines", "sizes differ"),
        ("Traceback of TorchScript\n  a line\nRuntimeError: sizes differ\n\n", "sizes differ"),
        (
            EINOPS,
            (
                'Error while processing rearrange-reduction pattern "b c -> c b".'
                " Expected 2 dimensions, got 1"
            ),
        ),
        ("(a :file:9)", "(a :file:9)"),
        ("lambda: made.py:49)", "lambda: made.py:49"),
        ("no source for <function f at 0x7ff60cd642c0>", "no source for <function f>"),
        ("", "ValueError"),
        ("x" * 301, "x" * 299 + "…"),
        ("x" * 300, "x" * 300),
    ],
)
def test_the_telling_line_of_a_text(message: str, line: str) -> None:
    assert telling_line(ValueError(message)) == line


def test_an_error_without_a_message_has_that_of_its_cause() -> None:
    error = ValueError()
    error.__cause__ = KeyError("a")
    assert telling_line(error) == "'a'"


def test_a_circle_of_causes_ends() -> None:
    error, other = ValueError("one"), ValueError("other")
    error.__cause__, other.__cause__ = other, error
    assert telling_line(error).startswith("one")
