"""Watching a forward: which op meets which parameter with the input, and which op refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from composecli.core.observations import Operand, ParameterOp
from composecli.runtime.op_mode import OpMode
from composecli.runtime.tensors import has_sizes, spec_of, storage_of, tensors_in

MOST_MEETINGS = 32
# In a frozen module the weights of these are constants of the graph, with weight norm they are computed.
_LAYERS = ("addmm", "mm", "bmm", "convolution", "_convolution", "embedding")
_MARK = "_composecli_from_input"


@dataclass
class OpFailure:
    op: str
    parameter: str | None
    operands: tuple[Operand, ...]
    numbers: tuple[int, ...]


@dataclass
class Recording:
    """What a watched forward showed. `ops` counts those on the input; `module` is the submodule, of an eager model,
    that was running at the end."""

    parameter_ops: list[ParameterOp] = field(default_factory=list)
    refusal: OpFailure | None = None
    ops: int = 0
    running: list[str] = field(default_factory=list)

    @property
    def module(self) -> str | None:
        if self.refusal is not None and self.refusal.parameter is not None:
            return self.refusal.parameter.rpartition(".")[0] or self.refusal.parameter
        return next((name for name in reversed(self.running) if name), None)


class _Watch(OpMode):
    """Sees every op of eager, scripted and exported modules alike, below autograd."""

    def __init__(self, module: nn.Module, seen: Recording) -> None:
        super().__init__()
        self.seen = seen
        named = [*module.named_buffers(), *module.named_parameters()]
        self.names = {storage_of(tensor): name for name, tensor in named}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = tensors_in([*args, *(kwargs or {}).values()])
        sources = sorted({number for tensor in tensors for number in getattr(tensor, _MARK, ())})
        if sources:
            self._note(func, args, tensors)
        try:
            result = func(*args, **(kwargs or {}))
        except Exception:
            if self.seen.refusal is None:
                weight = self._weight(tensors)
                parameter = self.names[storage_of(weight)] if weight is not None else None
                operands = tuple(map(self._operand, filter(has_sizes, tensors)))
                self.seen.refusal = OpFailure(
                    func._schema.name, parameter, operands, tuple(_numbers(args))
                )
            raise
        if sources:
            self.seen.ops += 1
            for tensor in tensors_in(result):
                setattr(tensor, _MARK, tuple(sources))
        return result

    def _operand(self, tensor: torch.Tensor) -> Operand:
        return Operand(
            spec_of(tensor), getattr(tensor, _MARK, ()), self.names.get(storage_of(tensor))
        )

    def _weight(self, tensors: list[torch.Tensor]) -> torch.Tensor | None:
        """The parameter among the arguments of an op: the one of the highest rank, a bias only where it is alone."""
        parameters = [tensor for tensor in tensors if storage_of(tensor) in self.names]
        return max(parameters, key=lambda tensor: tensor.dim(), default=None)

    def _note(self, func: Any, args: Any, tensors: list[torch.Tensor]) -> None:
        if len(self.seen.parameter_ops) >= MOST_MEETINGS:
            return
        op = func._schema.name.removeprefix("aten::").removeprefix("native_")
        value = next((t for t in tensors if hasattr(t, _MARK)), None)
        weight = self._weight(tensors)
        if op in _LAYERS and (weight is None or weight.dim() < 2):
            weight = next((t for t in tensors if not hasattr(t, _MARK) and t.dim() > 1), weight)
        if value is None or weight is None:
            return
        convolution = op in ("convolution", "_convolution") and len(args) > 8
        self.seen.parameter_ops.append(
            ParameterOp(
                op,
                spec_of(value),
                self.names.get(storage_of(weight), "a constant"),
                spec_of(weight),
                int(args[8]) if convolution else 1,
                bool(args[6]) if convolution else False,
                getattr(value, _MARK),
            )
        )


def _numbers(args: Any) -> Iterator[int]:
    """The whole numbers among the arguments of an op: the sizes of a view, the shape of a layer norm."""
    for value in args:
        if isinstance(value, list | tuple):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield value


@contextmanager
def recording(module: nn.Module, inputs: Any) -> Iterator[Recording]:
    """Watches what is run inside; `inputs` are the values whose way is followed."""
    seen = Recording()
    for number, tensor in enumerate(tensors_in(inputs)):
        setattr(tensor, _MARK, (number,))
    handles = [] if isinstance(module, torch.jit.ScriptModule) else list(_follow(module, seen))
    try:
        with _Watch(module, seen):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _follow(module: nn.Module, seen: Recording) -> Iterator[Any]:
    for name, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule):
            continue

        def enter(*_: Any, name: str = name) -> None:
            seen.running.append(name)

        def leave(*_: Any) -> None:
            seen.running.pop()

        yield submodule.register_forward_pre_hook(enter)
        yield submodule.register_forward_hook(leave)
