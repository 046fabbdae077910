"""Forwards of models whose tensors were not read: which values an answer depends on, and what can do without.

What comes of a tensor that was not read has sizes and no values. Where an op gives other sizes, or refuses, by the
values that it is given, these have to be read first; heavy ops are answered by their sizes alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from composecli.runtime.model import Model
from composecli.runtime.op_mode import OpMode
from composecli.runtime.pt2.program import Program
from composecli.runtime.tensors import storage_of, tensors_in
from composecli.runtime.weights.lazy_weights import AnyWeights
from composecli.runtime.weights.meta_kernels import KERNELS

# A value that depends on more records than this depends on the model.
MOST_RECORDS = 16
# By the number of the model and the name in its file.
Record = tuple[int, str]
Records = frozenset[Record]
EVERYTHING: Records = frozenset(((-1, ""),))
# All of them, in memory that can be written to.
WRITABLE: Records = frozenset(((-1, "whole"),))
_TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
# Ops that refuse by the values of whole numbers that they are given: where to look, how much to take.
_INDEXED = frozenset(
    (
        "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "index_select", "index_add",
        "index_add_", "index_copy", "index_copy_", "index_fill", "index_fill_", "index_reduce", "index_reduce_",
        "gather", "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "take",
        "put", "put_", "embedding", "_embedding_bag", "_embedding_bag_forward_only", "one_hot", "nll_loss_forward",
        "nll_loss2d_forward", "_ctc_loss", "_pack_padded_sequence", "bincount", "max_unpool2d", "max_unpool3d",
        "repeat_interleave", "segment_reduce", "_nested_tensor_from_mask",
    )
)  # fmt: skip
# Ops that refuse by the values of any tensor.
_VALUED = frozenset(
    (
        "multinomial", "bernoulli", "bernoulli_", "normal", "_assert_async", "cholesky", "cholesky_solve",
        "cholesky_inverse", "inverse", "histc", "logdet", "slogdet", "_linalg_det", "_linalg_slogdet", "_linalg_svd",
        "_linalg_eigh", "_linalg_solve_ex", "_linalg_check_errors", "lu_solve", "geqrf", "ormqr", "poisson", "binomial",
        "_sample_dirichlet", "_standard_gamma", "equal", "allclose", "is_nonzero", "quantize_per_tensor",
        "quantize_per_channel", "fake_quantize_per_channel_affine_cachemask", "_fused_moving_avg_obs_fq_helper",
        "fake_quantize_per_tensor_affine_cachemask", "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    )
)  # fmt: skip


class ValuesRequired(Exception):
    """The forward depends on values that were not read: of these records, of all where it is `ALL`. `op` asks."""

    def __init__(self, records: Records, op: str) -> None:
        super().__init__(f"{op} needs values")
        self.records = records
        self.op = op


@dataclass
class Ops:
    """What an op raised last: TorchScript loses its words on their way through Python."""

    raised: BaseException | None = None


class _Marker:
    """Marks storages, for as long as they live, with the records that their values depend on."""

    def mark(self, storage: torch.UntypedStorage, records: Records | None) -> None:
        storage._composecli_unread = (self, records)

    def of(self, tensor: torch.Tensor) -> Records | None:
        if tensor.layout is not torch.strided:
            return None
        marker, records = getattr(tensor.untyped_storage(), "_composecli_unread", (None, None))
        return records if marker is self else None


class _Unread(OpMode):
    def __init__(self, held: Mapping[int, AnyWeights], ops: Ops) -> None:
        super().__init__()
        self.marker = _Marker()
        self.own = dict[int, tuple[AnyWeights, str]]()
        for number, weights in held.items():
            for record, storage in weights.unread.items():
                self.marker.mark(storage, frozenset(((number, record),)))
                if weights.has_own_memory(record):
                    self.own[storage._cdata] = (weights, record)
        self.fixed = frozenset[int]().union(*(weights.fixed for weights in held.values()))
        self.needed: ValuesRequired | None = None
        self.ops = ops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tensors_in([*args, *kwargs.values()])
        unread = [
            (tensor, records) for tensor in given if (records := self.marker.of(tensor)) is not None
        ]
        if not unread:
            return self._run(func, args, kwargs)
        asks = _asks(func)
        asked = [
            records for tensor, records in _asked(asks, unread) if not self._read_now(tensor, func)
        ]
        if asked:
            self._stop(_together(asked), func)
        for storage in _written(func, args) if func._schema.is_mutable else ():
            if storage in self.fixed:
                self._stop(WRITABLE, func)
            # What it holds now is not what the file says any more.
            self.own.pop(storage, None)
        kernel = KERNELS.get(func)
        result = kernel(*args, **kwargs) if kernel is not None else None
        if result is None:
            result = self._run(func, args, kwargs)
        return self._marked(result, _together([records for _, records in unread]))

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except Exception as error:
            self.ops.raised = error
            raise

    def _read_now(self, tensor: torch.Tensor, func: Any) -> bool:
        """Read what a tensor of the model holds that has memory of its own, in the midst of the forward. What was
        made of it before goes on being unread."""
        storage = storage_of(tensor)
        if storage not in self.own:
            return False
        weights, record = self.own.pop(storage)
        weights.read((record,), func._schema.name)
        self.marker.mark(tensor.untyped_storage(), None)
        return True

    def _stop(self, records: Records, func: Any) -> None:
        self.needed = ValuesRequired(records, func._schema.name)
        raise self.needed

    def _marked(self, result: Any, records: Records) -> Any:
        for tensor in tensors_in(result):
            if tensor.layout is torch.strided:
                self.marker.mark(tensor.untyped_storage(), records)
        return result


class _MemoryAccess(TorchFunctionMode):  # type: ignore[misc]
    """Python code that looks at the memory of a tensor does so without an op."""

    def __init__(self, mode: _Unread) -> None:
        super().__init__()
        self.mode = mode

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _LOOKS and isinstance(args[0], torch.Tensor):
            records = self.mode.marker.of(args[0])
            if records is not None:
                self.mode.needed = ValuesRequired(records, func.__name__)
                raise self.mode.needed
        return func(*args, **(kwargs or {}))


_LOOKS = frozenset(
    (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.data_ptr)
)


@contextmanager
def weightless(models: Mapping[int, Model], ops: Ops | None = None) -> Iterator[None]:
    """Forwards of these models by what was read of their tensors.

    Raises:
        ValuesNeeded: what ran inside depends on more than that.
    """
    held = {number: model.weights for number, model in models.items() if model.weights is not None}
    if not any(weights.unread for weights in held.values()):
        yield
        return
    mode = _Unread(held, ops or Ops())
    try:
        with mode, _MemoryAccess(mode) if any(map(_is_python, models.values())) else nullcontext():
            yield
    finally:
        if mode.needed is not None:
            raise mode.needed from None


def _is_python(model: Model) -> bool:
    return not isinstance(model.module, torch.jit.ScriptModule | Program)


class _Asks(Enum):
    """Which values an op depends on: those of all its tensors, of those that hold whole numbers, of none."""

    ALL = auto()
    WHOLE = auto()
    NONE = auto()


@functools.cache
def _asks(func: Any) -> _Asks:
    name = func._schema.name.removeprefix("aten::")
    if name in _VALUED or name.startswith("linalg_") or any(tag in func.tags for tag in _TAGS):
        return _Asks.ALL
    return _Asks.WHOLE if name in _INDEXED else _Asks.NONE


def _asked(
    asks: _Asks, unread: list[tuple[torch.Tensor, Records]]
) -> Iterator[tuple[torch.Tensor, Records]]:
    """The tensors and the records whose values decide what the op does."""
    if asks is _Asks.NONE:
        return
    for tensor, records in unread:
        if asks is _Asks.ALL or not (tensor.is_floating_point() or tensor.is_complex()):
            yield tensor, records


def _together(found: list[Records]) -> Records:
    records = frozenset[Record]().union(*found)
    return EVERYTHING if records >= EVERYTHING or len(records) > MOST_RECORDS else records


def _written(func: Any, args: Any) -> Iterator[int]:
    """The storages that the op writes to."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from map(storage_of, tensors_in([value]))
