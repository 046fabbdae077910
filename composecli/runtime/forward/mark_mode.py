"""Following marks through a forward: NaN goes by itself, and rules help it past some ops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction, _DisableTorchDispatch
from torch._ops import OpOverload

from composecli.core.findings import Place
from composecli.runtime.forward.id_bounds import set_bounds
from composecli.runtime.forward.mark_rules import (
    MarkedOp,
    NoRule,
    bind,
    passes_nan,
    plain_name,
    rule_of,
)
from composecli.runtime.forward.marks import Marks, holds_nan
from composecli.runtime.op_mode import OpMode, tensor_arguments
from composecli.runtime.tensors import tensors_in

_OWN_NAMESPACES = ("aten", "prim", "prims")
_BATCH_NORMS = frozenset(
    (
        "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
        "_batch_norm_with_update", "_batch_norm_with_update_functional",
    )
)  # fmt: skip


class Meeting(Exception):
    """The op at which a forward was to stop; where TorchScript was then is in the trace."""


@dataclass
class Trail:
    """What is known after a forward with marks.

    `opaque` are the ops through which marks could not be followed, and `reads_values` whether the
    forward read marked values. `statistics` has, for each stage with one, the first batch norm in
    train mode; `stage` counts the stages that have begun.
    `running` are the submodules that run, the innermost last. If `history` is a list, it gets the
    marks of the first result of each op, and `names` the op and the submodule. The forward stops at
    the op with the number `stop`.
    """

    opaque: dict[str, None] = field(default_factory=dict)
    reads_values: bool = False
    statistics: dict[int, Place] = field(default_factory=dict)
    stage: int = 0
    running: list[str] = field(default_factory=list)
    history: list[Tensor | None] | None = None
    names: list[Place] = field(default_factory=list)
    stop: int | None = None
    ops: int = 0

    @property
    def submodule(self) -> str | None:
        """The innermost submodule that runs; None if it is the model itself, or not known."""
        for name in reversed(self.running):
            if name:
                return name
        return None


class SampleWise(OpMode):
    """Runs batch norms in train mode as in eval mode: there they mix samples by design."""

    def __init__(self, trail: Trail) -> None:
        super().__init__()
        self.trail = trail

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return self._run(func, args, kwargs or {})

    def _run(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an op or its replacement."""
        if plain_name(func) in _BATCH_NORMS:
            normed = self._batch_norm(func, args, kwargs)
            if normed is not None:
                return normed
        return self._run_other(func, args, kwargs)

    def _run_other(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an op that is not replaced."""
        return func(*args, **kwargs)

    def _batch_norm(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Return the eval-mode result of a batch norm in train mode; None if it is not one.

        One in train mode mixes samples by design. Instance norm is one on a batch of one.
        """
        bound = bind(func, args, kwargs)
        value: Tensor = bound["input"]
        if not bound.get("training", True) or value.shape[0] == 1:
            return None
        place = Place(func._schema.name, self.trail.submodule)
        self.trail.statistics.setdefault(self.trail.stage - 1, place)
        channels = value.shape[1]
        zeros = torch.zeros(channels, device=value.device)
        ones = torch.ones(channels, device=value.device)
        normed = torch.ops.aten.native_batch_norm.default(
            value, bound["weight"], bound["bias"], zeros, ones, False, 0.0, bound["eps"]
        )
        returned = (normed[0], zeros, ones, zeros, ones)
        return returned[: len(func._schema.returns)]


class MarkMode(SampleWise):
    """Keeps the marks of every tensor right while a forward runs."""

    def __init__(self, marks: Marks, trail: Trail) -> None:
        super().__init__(trail)
        self.marks = marks

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        # Functions that this mode calls itself need not pass through a mode for functions.
        with DisableTorchFunction():
            result = self._run(func, args, kwargs or {})
            self._note(func, result)
        return result

    def note_memory_read(self, tensor: Tensor, _function: str) -> None:
        """Note that Python code looks at the memory of a marked tensor without an op."""
        with _DisableTorchDispatch():
            if self.marks.of(tensor) is not None:
                self.trail.reads_values = True

    def _run_other(self, func: OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an op, and mark its results where NaN does not do it."""
        tensors = tensor_arguments(args, kwargs)
        known: dict[int, Tensor] | None = None
        if self._must_look_before(func, tensors):
            known = self._marks_of(tensors)
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        set_bounds(func, args, kwargs, outputs)
        if known is None and _must_look_after(func, outputs):
            known = self._marks_of(tensors)
        if known is not None:
            op = MarkedOp(func, bind(func, args, kwargs), known)
            with _DisableTorchDispatch():
                self._apply(op, outputs)
        return result

    def _must_look_before(self, func: OpOverload, tensors: list[Tensor]) -> bool:
        """Return whether the marks of the arguments matter, or are gone when the op has run."""
        if not passes_nan(func) or any(map(self.marks.has_beside, tensors)):
            return True
        return func._schema.is_mutable and not all(map(holds_nan, tensors))

    def _marks_of(self, tensors: list[Tensor]) -> dict[int, Tensor]:
        """Return the marks of those tensors that have some, by their ids."""
        found = dict[int, Tensor]()
        with _DisableTorchDispatch():
            for tensor in tensors:
                marks = self.marks.of(tensor)
                if marks is not None:
                    found[id(tensor)] = marks.clone()
        return found

    def _apply(self, op: MarkedOp, outputs: list[Tensor]) -> None:
        """Mark the results of an op."""
        if not op.marks:
            if op.func._schema.is_mutable:
                for output in outputs:
                    self.marks.set(output, None)
            return
        if _reads_values(op):
            self.trail.reads_values = True
            return
        if _is_opaque(op, outputs):
            self._mark_all(op, outputs)
            return
        for number, output in enumerate(outputs):
            self._mark(op, number, output)

    def _mark(self, op: MarkedOp, number: int, output: Tensor) -> None:
        """Mark one result; a view has the marks of the tensor that it shows."""
        if not op.func._schema.is_mutable and self.marks.has_beside(output):
            return
        if holds_nan(output) and number > 0 and passes_nan(op.func):
            return
        try:
            self.marks.set(output, rule_of(op.func)(op, output))
        except NoRule:
            self._mark_all(op, [output])

    def _mark_all(self, op: MarkedOp, outputs: list[Tensor]) -> None:
        """Mark all elements of results that may depend on any marked one."""
        self.trail.opaque[op.func._schema.name] = None
        for output in outputs:
            everything = torch.ones((), dtype=torch.bool, device=output.device)
            if not _is_unusual(output):
                self.marks.set(output, everything)

    def _note(self, func: OpOverload, result: Any) -> None:
        """Keep the marks of the first result of an op, if they are asked for; stop at the last."""
        number = self.trail.ops
        self.trail.ops += 1
        if self.trail.stop == number:
            raise Meeting
        if self.trail.history is None:
            return
        marks: Tensor | None = None
        outputs = tensors_in(result)
        if outputs:
            with _DisableTorchDispatch():
                marks = self.marks.of(outputs[0])
                if marks is not None:
                    marks = marks.clone()
        self.trail.history.append(marks)
        self.trail.names.append(Place(func._schema.name, self.trail.submodule))


def _must_look_after(func: OpOverload, outputs: list[Tensor]) -> bool:
    """Return whether results cannot be NaN, or NaN may not reach them."""
    if not outputs or func.namespace not in _OWN_NAMESPACES or "quant" in func._schema.name:
        return True
    return not all(map(holds_nan, outputs)) or any(map(_is_unusual, outputs))


def _is_unusual(tensor: Tensor) -> bool:
    """Return whether a tensor can have no marks."""
    return tensor.layout is not torch.strided or tensor.is_nested or tensor.is_quantized


def _reads_values(op: MarkedOp) -> bool:
    """Return whether an op returns a number of Python."""
    return torch.Tag.data_dependent_output in op.func.tags or not op.func._schema.returns


def _is_opaque(op: MarkedOp, outputs: list[Tensor]) -> bool:
    """Return whether nothing is known of how marks pass through an op."""
    if op.func.namespace not in _OWN_NAMESPACES or "quant" in op.func._schema.name:
        return True
    if any(map(_is_unusual, outputs)):
        return True
    has_sizes_of_values = torch.Tag.dynamic_output_shape in op.func.tags
    return has_sizes_of_values and op.name not in ("index", "_unsafe_index")
