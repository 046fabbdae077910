"""Forwards of models whose weights were not read: which values does the result depend on?

A tensor that was computed from an unread weight has sizes and no values. An op whose result sizes
or errors depend on values needs them to be read first. Meta kernels replace expensive ops.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch._ops import OpOverload

from composecli.runtime.model import Model
from composecli.runtime.op_mode import MemoryReads, OpMode, op_name, tensor_arguments
from composecli.runtime.pt2.program import Program
from composecli.runtime.tensors import storage_of, tensors_in
from composecli.runtime.weights.lazy_weights import LazyWeights
from composecli.runtime.weights.meta_kernels import KERNELS, Kernel

# A value that depends on more records than this depends on the whole model.
MAX_RECORDS = 16
# The number of the model, and the name of the record in its file.
Record: TypeAlias = tuple[int, str]
Records: TypeAlias = frozenset[Record]
EVERYTHING: Records = frozenset(((-1, ""),))
# All records, in memory that can be written to.
WRITABLE: Records = frozenset(((-1, "whole"),))
_TAGS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
# Ops that fail for some values of their integer tensors: positions and lengths.
_INDEX_OPS = frozenset(
    (
        "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "index_select",
        "index_add", "index_add_", "index_copy", "index_copy_", "index_fill", "index_fill_",
        "index_reduce", "index_reduce_", "gather", "scatter", "scatter_", "scatter_add",
        "scatter_add_", "scatter_reduce", "scatter_reduce_", "take", "put", "put_", "embedding",
        "_embedding_bag", "_embedding_bag_forward_only", "one_hot", "nll_loss_forward",
        "nll_loss2d_forward", "_ctc_loss", "_pack_padded_sequence", "bincount", "max_unpool2d",
        "max_unpool3d", "repeat_interleave", "segment_reduce", "_nested_tensor_from_mask",
    )
)  # fmt: skip
# Ops that fail for some values of any of their tensors.
_VALUE_OPS = frozenset(
    (
        "multinomial", "bernoulli", "bernoulli_", "normal", "_assert_async", "cholesky",
        "cholesky_solve", "cholesky_inverse", "inverse", "histc", "logdet", "slogdet",
        "_linalg_det", "_linalg_slogdet", "_linalg_svd", "_linalg_eigh", "_linalg_solve_ex",
        "_linalg_check_errors", "lu_solve", "geqrf", "ormqr", "poisson", "binomial",
        "_sample_dirichlet", "_standard_gamma", "equal", "allclose", "is_nonzero",
        "quantize_per_tensor", "quantize_per_channel",
        "fake_quantize_per_channel_affine_cachemask", "_fused_moving_avg_obs_fq_helper",
        "fake_quantize_per_tensor_affine_cachemask",
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",
    )
)  # fmt: skip


class ValuesRequired(Exception):
    """The forward depends on the values of these records, which were not read.

    `records` may be EVERYTHING or WRITABLE. `op` is the op that needs the values.
    """

    def __init__(self, records: Records, op: str) -> None:
        super().__init__(f"{op} needs values")
        self.records = records
        self.op = op


@dataclass
class LastOpError:
    """The last error that an op raised: TorchScript drops its message when Python handles it."""

    error: BaseException | None = None


class _Unread(NamedTuple):
    """A tensor without values, and the records that its values depend on."""

    tensor: Tensor
    records: Records


class _Marker:
    """Marks storages with the records that their values depend on, for as long as they live."""

    def mark(self, storage: torch.UntypedStorage, records: Records | None) -> None:
        """Mark the values of a storage as dependent on these records; None for known values."""
        storage._composecli_unread = (self, records)

    def records_of(self, tensor: Tensor) -> Records | None:
        """Return the records that the values of a tensor depend on; None if it has values."""
        if tensor.layout is not torch.strided:
            return None
        marker, records = getattr(tensor.untyped_storage(), "_composecli_unread", (None, None))
        if marker is not self:
            return None
        return records


class _WeightlessMode(OpMode):
    """Tracks which records the results depend on, and stops ops that need values."""

    def __init__(
        self,
        weights: Mapping[int, LazyWeights],
        last_error: LastOpError,
        kernels: Mapping[OpOverload, Kernel],
    ) -> None:
        super().__init__()
        self.last_error = last_error
        self.kernels = kernels
        self.needed: ValuesRequired | None = None
        self.marker = _Marker()
        # By storage: tensors whose values can be read in the middle of the forward.
        self.readable = dict[int, tuple[LazyWeights, str]]()
        self.read_only = set[int]()
        for number, model_weights in weights.items():
            self.read_only |= model_weights.read_only
            for record, storage in model_weights.unread.items():
                records = frozenset(((number, record),))
                self.marker.mark(storage, records)
                if model_weights.is_writable(record):
                    self.readable[storage._cdata] = (model_weights, record)

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = tensor_arguments(args, kwargs)
        unread = list(self._unread(tensors))
        if not unread:
            return self._run(func, args, kwargs)
        self._require_values(func, unread)
        self._require_writable(func, args)
        result = None
        kernel = self.kernels.get(func)
        if kernel is not None:
            result = kernel(*args, **kwargs)
        if result is None:
            result = self._run(func, args, kwargs)
        records = _union(item.records for item in unread)
        self._mark(result, records)
        return result

    def _unread(self, tensors: Iterable[Tensor]) -> Iterator[_Unread]:
        """Yield the tensors without values, with the records that they depend on."""
        for tensor in tensors:
            records = self.marker.records_of(tensor)
            if records is not None:
                yield _Unread(tensor, records)

    def _run(self, func: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run the real kernel, and keep its error for the message that TorchScript drops."""
        try:
            return func(*args, **kwargs)
        except Exception as error:
            self.last_error.error = error
            raise

    def _require_values(self, func: OpOverload, unread: list[_Unread]) -> None:
        """Read the values that the op depends on; stop the forward if they cannot be read now."""
        missing = list[Records]()
        for tensor, records in _needed(func, unread):
            if not self._read_now(tensor, func):
                missing.append(records)
        if missing:
            records = _union(missing)
            self._stop(records, func._schema.name)

    def _require_writable(self, func: OpOverload, args: Sequence[Any]) -> None:
        """Stop the forward if the op writes to memory that cannot be written to."""
        if not func._schema.is_mutable:
            return
        for storage in _written_storages(func, args):
            if storage in self.read_only:
                self._stop(WRITABLE, func._schema.name)
            # From here on its values differ from those in the file.
            self.readable.pop(storage, None)

    def _read_now(self, tensor: Tensor, func: OpOverload) -> bool:
        """Load the values of a weight during the forward, if it has memory of its own.

        Results already computed from it stay marked as unread.
        """
        storage = storage_of(tensor)
        if storage not in self.readable:
            return False
        weights, record = self.readable.pop(storage)
        weights.read((record,), func._schema.name)
        self.marker.mark(tensor.untyped_storage(), None)
        return True

    def stop_memory_read(self, tensor: Tensor, function: str) -> None:
        """Stop Python code that looks at the memory of an unread tensor without an op."""
        records = self.marker.records_of(tensor)
        if records is not None:
            self._stop(records, function)

    def _stop(self, records: Records, name: str) -> None:
        """Raise ValuesRequired, and keep it in case the forward handles it."""
        self.needed = ValuesRequired(records, name)
        raise self.needed

    def _mark(self, result: Any, records: Records) -> None:
        """Mark the tensors of a result as dependent on these records."""
        for tensor in tensors_in(result):
            if tensor.layout is torch.strided:
                self.marker.mark(tensor.untyped_storage(), records)


@contextmanager
def weightless(
    models: Mapping[int, Model],
    last_error: LastOpError | None = None,
    kernels: Mapping[OpOverload, Kernel] = KERNELS,
) -> Iterator[None]:
    """Run the forwards in the body with zeros for the weights that were not read.

    If an op raises, its error is stored in `last_error`. `kernels` run instead of the real ones
    where weights are missing.

    Raises:
        ValuesRequired: if a result or an error in the body depends on an unread weight.
    """
    weights = dict[int, LazyWeights]()
    for number, model in models.items():
        if model.weights is not None:
            weights[number] = model.weights
    has_unread = any(model_weights.unread for model_weights in weights.values())
    if not has_unread:
        yield
        return
    mode = _WeightlessMode(weights, last_error or LastOpError(), kernels)
    memory_reads: AbstractContextManager[Any] = nullcontext()
    if any(is_python(model) for model in models.values()):
        memory_reads = MemoryReads(mode.stop_memory_read)
    try:
        with mode, memory_reads:
            yield
    finally:
        # The body may have handled or wrapped the error: the forward is worthless all the same.
        if mode.needed is not None:
            raise mode.needed from None


def is_python(model: Model) -> bool:
    """Return whether the forward of a model is Python code of its author."""
    return not isinstance(model.module, torch.jit.ScriptModule | Program)


class _NeededValues(Enum):
    """The tensors whose values an op depends on."""

    ALL = auto()
    INTEGERS = auto()
    NONE = auto()


@functools.cache
def _needed_values(func: OpOverload) -> _NeededValues:
    """Classify an op by its name and its tags."""
    name = op_name(func)
    if name in _VALUE_OPS or name.startswith("linalg_"):
        return _NeededValues.ALL
    if any(tag in func.tags for tag in _TAGS):
        return _NeededValues.ALL
    if name in _INDEX_OPS:
        return _NeededValues.INTEGERS
    return _NeededValues.NONE


def _needed(func: OpOverload, unread: list[_Unread]) -> Iterator[_Unread]:
    """Yield the unread tensors whose values the op depends on."""
    needed = _needed_values(func)
    if needed is _NeededValues.NONE:
        return
    for item in unread:
        if needed is _NeededValues.ALL or _holds_integers(item.tensor):
            yield item


def _holds_integers(tensor: Tensor) -> bool:
    """Return whether the values may be positions or lengths: integers or booleans."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def _union(parts: Iterable[Records]) -> Records:
    """Return the records of all parts; too many of them become EVERYTHING."""
    records = frozenset[Record]().union(*parts)
    if records >= EVERYTHING or len(records) > MAX_RECORDS:
        return EVERYTHING
    return records


def _written_storages(func: OpOverload, args: Sequence[Any]) -> Iterator[int]:
    """Yield the storages that the op writes to."""
    for argument, value in zip(func._schema.arguments, args, strict=False):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        for tensor in tensors_in([value]):
            yield storage_of(tensor)
