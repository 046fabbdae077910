"""The base class of modes that see every op, and helpers to inspect an op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from composecli.runtime.tensors import tensors_in

# Python functions that look at the memory of a tensor without an op.
_MEMORY_READS = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.data_ptr))


class OpMode(TorchDispatchMode):  # type: ignore[misc]
    """Subclasses implement `__torch_dispatch__`, which is called for every op while it is entered.

    Ops of eager, scripted and exported modules all arrive there, below autograd.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here, so no mode has to be hidden from the compiler.

        The default wraps the mode with torch._dynamo, whose import takes as long as torch's own.
        """
        return False


class MemoryReads(TorchFunctionMode):  # type: ignore[misc]
    """Tells, while it is entered, when Python code is about to look at the memory of a tensor.

    No op does that, so that an `OpMode` does not see it. `tell` gets the tensor and the name of the
    function that looks.
    """

    def __init__(self, tell: Callable[[Tensor, str], None]) -> None:
        super().__init__()
        self.tell = tell

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _MEMORY_READS and isinstance(args[0], Tensor):
            self.tell(args[0], func.__name__)
        return func(*args, **(kwargs or {}))


def op_name(op: OpOverload) -> str:
    """Return the name of an op without the namespace of PyTorch's own ops: `addmm`."""
    return str(op._schema.name.removeprefix("aten::"))


def tensor_arguments(args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> list[Tensor]:
    """Return every tensor among the arguments of an op, those in lists included."""
    return tensors_in([*args, *(kwargs or {}).values()])
