"""The state dict of a pickled module, from its parsed pickle: no code of the pickle runs."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from composecli.files.archive import Archive
from composecli.files.pickled_module import (
    StoredTensor,
    Unreadable,
    is_module,
    state_tensors,
    training_flags,
)
from composecli.files.skeleton import has_foreign_byte_order


class StoredState(OrderedDict[str, torch.Tensor]):
    """The state dict of a pickled module. Its keys are those of the class that was pickled.

    `training` says which of its submodules are in train mode, by their names.
    """

    training: Mapping[str, bool] = {}

    def put_modes(self, module: nn.Module) -> None:
        """Put each submodule into the mode that it was pickled in."""
        for name, inner in module.named_modules():
            if name in self.training:
                inner.training = self.training[name]


def put_dtypes(module: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give each parameter and buffer the dtype that it was pickled with.

    A class makes its weights as float32, and the module may have been pickled as float16.
    """
    own = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    for name, tensor in own.items():
        stored = weights.get(name)
        if stored is not None and stored.dtype != tensor.dtype:
            tensor.data = tensor.data.to(stored.dtype)


def holds_module(archive: Archive) -> bool:
    """Return whether the pickle of a checkpoint is a module."""
    return is_module(archive.pickle("data.pkl").value)


def read_sizes(archive: Archive) -> StoredState:
    """Return the state dict of the module in a checkpoint, with its tensors on meta.

    Raises:
        Unreadable: if it has a tensor that only its own code can make.
    """
    state = _new_state(archive)
    for name, stored in _tensors(archive).items():
        dtype = getattr(torch, stored.dtype.name)
        sizes, strides = stored.sizes, stored.strides
        state[name] = torch.empty_strided(sizes, strides, dtype=dtype, device="meta")
    return state


def read_values(archive: Archive) -> StoredState:
    """Return the state dict of the module in a checkpoint: its tensors are pages of the file.

    A value that is written changes no file.

    Raises:
        Unreadable: if it has a tensor that only its own code can make.
    """
    pages = mmap.mmap(archive.fileno(), 0, access=mmap.ACCESS_COPY)
    is_foreign = has_foreign_byte_order(archive)
    storages = dict[str, torch.UntypedStorage]()
    state = _new_state(archive)
    for name, stored in _tensors(archive).items():
        dtype = getattr(torch, stored.dtype.name)
        if stored.record not in storages:
            storages[stored.record] = _storage(archive, stored.record, pages)
            if is_foreign:
                storages[stored.record].byteswap(dtype)
        empty = torch.empty(0, dtype=dtype)
        storage = storages[stored.record]
        state[name] = empty.set_(storage, stored.offset, stored.sizes, stored.strides)
    return state


def _new_state(archive: Archive) -> StoredState:
    """Return the state dict of a module, still without tensors."""
    state = StoredState()
    state.training = training_flags(archive.pickle("data.pkl").value)
    return state


def _storage(archive: Archive, record: str, pages: mmap.mmap) -> torch.UntypedStorage:
    """Return a storage over the pages of a record."""
    size, start = archive.size(record), archive.start(record)
    if size == 0:
        return torch.UntypedStorage(0)
    content = torch.frombuffer(pages, dtype=torch.uint8, count=size, offset=start)
    return content.untyped_storage()


def _tensors(archive: Archive) -> dict[str, StoredTensor]:
    """Return the places of the tensors, all of which lie inside their records.

    Raises:
        Unreadable: if one does not.
    """
    tensors = state_tensors(archive.pickle("data.pkl").value)
    for name, stored in tensors.items():
        size = archive.size(stored.record)
        if stored.end > size:
            raise Unreadable(f"{name} reaches to byte {stored.end:,} of {size:,}")
    return tensors
