"""Recording a forward: the ops in which the input meets a parameter, and the op that failed.

This module only records: the rules for layers are in `composecli.inference.parameter_ops`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from composecli.core.observations import Lookup, Operand, ParameterOp
from composecli.inference.parameter_ops import UNNAMED_WEIGHT_OPS
from composecli.runtime.forward.lookups import failed_lookup
from composecli.runtime.op_mode import MemoryReads, OpMode, op_name, tensor_arguments
from composecli.runtime.tensors import has_sizes, is_integer, spec_of, storage_of, tensors_in

MAX_PARAMETER_OPS = 32
_UNNAMED = "a constant"
# Ops that return a Python number, or a tensor whose sizes depend on the values.
_VALUE_TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
# An attribute of tensors: the numbers of the input tensors that they were computed from.
_MARK = "_composecli_from_input"


@dataclass
class OpFailure:
    """The op that raised: its name, the parameter it had, its tensors and its integers.

    `lookup` has the ids that it looked up, if one has no row.
    """

    op: str
    parameter: str | None
    operands: tuple[Operand, ...]
    numbers: tuple[int, ...]
    lookup: Lookup | None = None


@dataclass
class Recording:
    """The record of one forward.

    `ops` counts the ops on tensors computed from the input. `running` are the names of the
    submodules of an eager model that are running, the innermost last. `reads_values`: sizes or
    branches may depend on values that were computed from the input.
    """

    parameter_ops: list[ParameterOp] = field(default_factory=list)
    failure: OpFailure | None = None
    ops: int = 0
    running: list[str] = field(default_factory=list)
    reads_values: bool = False

    @property
    def submodule(self) -> str | None:
        """The submodule that failed; None if it is the model itself, or not known."""
        name = self.module
        failure = self.failure
        if failure is not None and failure.parameter is not None:
            name, _, _ = failure.parameter.rpartition(".")
        return name or None

    @property
    def module(self) -> str | None:
        """The submodule that failed: the owner of the parameter, or the one that was running."""
        if self.failure is not None and self.failure.parameter is not None:
            parameter = self.failure.parameter
            owner, _, _ = parameter.rpartition(".")
            return owner or parameter
        for name in reversed(self.running):
            if name:
                return name
        return None

    def note_memory_read(self, tensor: Tensor, _function: str) -> None:
        """Note that Python code looks at the memory of a tensor computed from the input."""
        if _inputs_of(tensor):
            self.reads_values = True


class _RecordingMode(OpMode):
    """Marks the results of ops on the input, and records the ops with a parameter."""

    def __init__(self, module: nn.Module, recording: Recording) -> None:
        super().__init__()
        self.recording = recording
        self.names = dict[int, str]()
        for name, tensor in (*module.named_buffers(), *module.named_parameters()):
            self.names[storage_of(tensor)] = name

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        tensors = tensor_arguments(args, kwargs)
        inputs = set[int]()
        for tensor in tensors:
            inputs.update(_inputs_of(tensor))
        if inputs:
            self._record(func, args, tensors)
            if any(tag in func.tags for tag in _VALUE_TAGS):
                self.recording.reads_values = True
        try:
            result = func(*args, **(kwargs or {}))
        except Exception:
            if self.recording.failure is None:
                self.recording.failure = self._failure(func, args, tensors)
            raise
        if inputs:
            self.recording.ops += 1
            numbers = tuple(sorted(inputs))
            for tensor in tensors_in(result):
                setattr(tensor, _MARK, numbers)
        return result

    def _failure(self, func: OpOverload, args: Sequence[Any], tensors: list[Tensor]) -> OpFailure:
        """Describe an op that raised, with the parameter among its tensors."""
        parameter: str | None = None
        weight = self._weight(tensors)
        if weight is not None:
            parameter = self._name(weight)
        operands = list[Operand]()
        for tensor in tensors:
            if has_sizes(tensor):
                operands.append(self._operand(tensor))
        numbers = tuple(_integers(args))
        lookup = failed_lookup(func, args)
        return OpFailure(func._schema.name, parameter, tuple(operands), numbers, lookup)

    def _operand(self, tensor: Tensor) -> Operand:
        """Describe a tensor of an op: its spec, the inputs it depends on, and its name."""
        return Operand(spec_of(tensor), _inputs_of(tensor), self._name(tensor))

    def _name(self, tensor: Tensor) -> str | None:
        """Return the name of the parameter or buffer that owns the memory of a tensor."""
        return self.names.get(storage_of(tensor))

    def _weight(self, tensors: list[Tensor]) -> Tensor | None:
        """Return the parameter of the highest rank among the arguments of an op.

        So a bias is returned only if it is alone.
        """
        parameters = list[Tensor]()
        for tensor in tensors:
            if self._name(tensor) is not None:
                parameters.append(tensor)
        return max(parameters, key=lambda tensor: tensor.dim(), default=None)

    def _record(self, func: OpOverload, args: Sequence[Any], tensors: list[Tensor]) -> None:
        """Record an op on a value from the input and a weight, up to the maximum."""
        if len(self.recording.parameter_ops) >= MAX_PARAMETER_OPS:
            return
        op = op_name(func).removeprefix("native_")
        values = [tensor for tensor in tensors if hasattr(tensor, _MARK)]
        weight = self._weight(tensors)
        has_matrix = weight is not None and weight.dim() > 1
        if op in UNNAMED_WEIGHT_OPS and not has_matrix:
            weight = _unnamed_weight(tensors, weight)
        if not values or weight is None:
            return
        value = values[0]
        name = self._name(weight) or _UNNAMED
        groups = _argument(func, args, "groups", default=1)
        transposed = _argument(func, args, "transposed", default=False)
        parameter_op = ParameterOp(
            op,
            spec_of(value),
            name,
            spec_of(weight),
            int(groups),
            bool(transposed),
            _inputs_of(value),
        )
        self.recording.parameter_ops.append(parameter_op)


def _inputs_of(tensor: Tensor) -> tuple[int, ...]:
    """Return the numbers of the input tensors that a tensor was computed from."""
    inputs: tuple[int, ...] = getattr(tensor, _MARK, ())
    return inputs


def _unnamed_weight(tensors: list[Tensor], otherwise: Tensor | None) -> Tensor | None:
    """Return the first matrix, or tensor of a higher rank, that does not depend on the input."""
    for tensor in tensors:
        if not hasattr(tensor, _MARK) and tensor.dim() > 1:
            return tensor
    return otherwise


def _argument(func: OpOverload, args: Sequence[Any], name: str, default: Any) -> Any:
    """Return the positional argument that the schema of an op calls `name`."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.name == name:
            return value
    return default


def _integers(args: Sequence[Any]) -> Iterator[int]:
    """Yield the integers among the arguments of an op: the sizes of a view, for example."""
    for value in args:
        if isinstance(value, list | tuple):
            yield from _integers(value)
        elif is_integer(value):
            yield value


@contextmanager
def recording_ops(module: nn.Module, inputs: list[Any]) -> Iterator[Recording]:
    """Record the forward of `module` that runs in the body; `inputs` are its arguments.

    A linear layer `(N, 10) -> (N, 5)` called with `float32[2, 10]` gives one ParameterOp: `addmm`,
    value `float32[2, 10]`, parameter `weight`, weight `float32[10, 5]`, inputs `(0,)`.
    """
    recording = Recording()
    for number, tensor in enumerate(tensors_in(inputs)):
        setattr(tensor, _MARK, (number,))
    handles = list[Any]()
    memory_reads: AbstractContextManager[Any] = nullcontext()
    if not isinstance(module, torch.jit.ScriptModule):
        handles += register_hooks(module, recording.running)
        memory_reads = MemoryReads(recording.note_memory_read)
    try:
        with _RecordingMode(module, recording), memory_reads:
            yield recording
    finally:
        for handle in handles:
            handle.remove()


def register_hooks(module: nn.Module, running: list[str]) -> Iterator[Any]:
    """Register hooks that keep the names of the running submodules, and yield their handles."""
    for name, submodule in module.named_modules():
        if isinstance(submodule, torch.jit.ScriptModule):
            continue

        def enter(*_: Any, name: str = name) -> None:
            """Note that the submodule runs; its name is bound when the hook is made."""
            running.append(name)

        def leave(*_: Any) -> None:
            """Forget the innermost submodule. It stays noted if it raises."""
            running.pop()

        yield submodule.register_forward_pre_hook(enter)
        yield submodule.register_forward_hook(leave)
