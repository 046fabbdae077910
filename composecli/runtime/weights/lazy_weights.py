"""Lazy weights: the values of a model's tensors, read when an answer depends on them.

A model is loaded without its tensors. Each is replaced by one of the same sizes that holds zeros,
and occupies memory only if it is small. When values are needed, the records of the file are mapped
in their place.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from composecli.files.members import Members
from composecli.files.torchscript import Attributes

# Larger parameters share zeros and later become pages of the file: they occupy no memory, and
# nothing can be written to them.
MAX_WRITABLE_BYTES = 2**16
# PyTorch aligns its records to 64 bytes, and no dtype needs more than this.
ALIGNMENT_BYTES = 16

# By the name of the record that holds the values.
Storages: TypeAlias = Mapping[str, torch.UntypedStorage]
AttributeValue: TypeAlias = Tensor | list[Tensor]


@dataclass(frozen=True)
class TensorSlot:
    """An attribute of a submodule that holds a tensor, and the record of the file with its values.

    If the attribute is a list of tensors, `index` is the position in it.
    """

    owner: nn.Module
    module: str
    attribute: str
    record: str
    tensor: Tensor
    parameter: bool
    index: int | None = None

    @property
    def name(self) -> str:
        """The qualified name of the attribute: `encoder.fc.weight`."""
        return f"{self.module}.{self.attribute}".lstrip(".")


@dataclass(frozen=True, slots=True)
class Reading:
    """These tensors and their records were read for an op, or all if none is named."""

    op: str
    tensors: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


@dataclass
class ArchiveWeights:
    """The tensor slots of a model from an archive, and the records that were read for an op."""

    archive: Members
    slots: tuple[TensorSlot, ...]
    readings: list[Reading] = field(default_factory=list)
    _storages: dict[str, torch.UntypedStorage] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)
    _writable: set[str] = field(default_factory=set)
    _read_since_reload: set[str] = field(default_factory=set)
    _tensors: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The archive is closed after loading, and no file can be opened while a model runs.
        self._file = mmap.mmap(self.archive.fileno(), 0, access=mmap.ACCESS_READ)

    def fill_with_zeros(self) -> None:
        """Put zeros into every slot."""
        records = {slot.record for slot in self.slots}
        for slot in self.slots:
            if not slot.parameter or self.archive.size(slot.record) <= MAX_WRITABLE_BYTES:
                self._writable.add(slot.record)
        shared = records - self._writable
        max_bytes = max(map(self.archive.size, shared), default=0)
        zeros = _Zeros(max_bytes)
        for record in records:
            size = self.archive.size(record)
            if record in self._writable:
                self._storages[record] = zeros.new_storage(size)
            else:
                self._storages[record] = zeros.shared_storage(size)
        self._unread = records
        self._assign(records)

    @property
    def unread(self) -> Storages:
        """The storages that hold zeros, by the record with their values."""
        return {record: self._storages[record] for record in self._unread}

    @property
    def read_only(self) -> frozenset[int]:
        """The addresses of the storages that cannot be written to."""
        fixed = self._storages.keys() - self._writable
        storages = [self._storages[record] for record in fixed]
        return frozenset(storage._cdata for storage in storages)

    def read(self, records: Collection[str] | None = None, op: str | None = None) -> None:
        """Read these records into their slots, or all if none are named.

        If `op` is given, it is the op that depends on the values, and the reading is noted.
        """
        wanted = self._unread
        if records is not None:
            wanted = self._unread & set(records)
        if wanted and op is not None:
            reading = self._reading(wanted, op, everything=records is None)
            self.readings.append(reading)
        for record in wanted:
            self._read(record)
        self._unread = self._unread - wanted
        self._assign(wanted - self._writable)

    def _reading(self, wanted: set[str], op: str, *, everything: bool) -> Reading:
        """Describe the reading of these records for an op; `everything` names none of them."""
        if everything:
            return Reading(op)
        names = {slot.name for slot in self.slots if slot.record in wanted}
        return Reading(op, tuple(sorted(names)), tuple(sorted(wanted)))

    def meta_values(self) -> Iterator[tuple[str, str, AttributeValue]]:
        """Yield each submodule and attribute with its value, on the meta device.

        Slots that share a record share a storage there, too.
        """
        storages = dict[str, torch.UntypedStorage]()
        for slot in self.slots:
            size = self.archive.size(slot.record)
            storages[slot.record] = torch.UntypedStorage(size, device="meta")
        for slot, value in assignments(self.slots, storages, {}):
            yield slot.module, slot.attribute, value

    def is_writable(self, record: str) -> bool:
        """Return whether the tensors of a record get their values without being replaced."""
        return record in self._writable

    def _read(self, record: str) -> None:
        """Map a record as it is in the file, or copy it.

        It is copied if it may be written to, or is at an odd place, as in the old format.
        """
        start = self.archive.start(record)
        size = self.archive.size(record)
        is_fixed = record not in self._writable
        if is_fixed and start % ALIGNMENT_BYTES == 0:
            self._storages[record] = _storage_over(self._file, start, size)
        elif size > 0:
            end = start + size
            content = bytearray(self._file[start:end])
            values = _storage_over(content, 0, size)
            if is_fixed:
                self._storages[record] = values
                return
            self._storages[record].copy_(values)
            self._read_since_reload.add(record)

    def reload(self) -> None:
        """Read again the records read during a forward: restoring the state overwrote them."""
        for record in tuple(self._read_since_reload):
            self._read(record)
        self._read_since_reload.clear()

    def _assign(self, records: Iterable[str]) -> None:
        """Put tensors over the present storages of these records into their slots."""
        storages = {record: self._storages[record] for record in records}
        assign(self.slots, storages, self._tensors)


@dataclass
class FactoryWeights:
    """The weights of a module that a factory made: those of its file, once an answer needs them."""

    module: nn.Module
    load: Callable[[], object]
    readings: list[Reading] = field(default_factory=list)
    slots: tuple[TensorSlot, ...] = ()
    read_only: frozenset[int] = frozenset()
    _read: bool = False

    @property
    def unread(self) -> Storages:
        """The storages that do not hold the values of the file, by the names of their tensors."""
        storages = dict[str, torch.UntypedStorage]()
        if self._read:
            return storages
        for name, tensor in self.module.state_dict().items():
            # The extra state of a module may be anything.
            if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided:
                storages[name] = tensor.untyped_storage()
        return storages

    def read(self, _records: Collection[str] | None = None, op: str | None = None) -> None:
        """Load the whole file. If `op` is given, it is the op that depends on the values."""
        if self._read:
            return
        self._read = True
        if op is not None:
            self.readings.append(Reading(op))
        self.load()

    def is_writable(self, _record: str) -> bool:
        """Return False: nothing is read during a forward."""
        return False

    def meta_values(self) -> tuple[()]:
        """Return nothing: the tensors are in memory, and are saved from there."""
        return ()

    def reload(self) -> None:
        """Do nothing: nothing is read during a forward."""


LazyWeights: TypeAlias = ArchiveWeights | FactoryWeights


def assign(slots: Iterable[TensorSlot], storages: Storages, tensors: dict[int, Tensor]) -> None:
    """Put tensors over these storages into their slots; see `assignments`."""
    for slot, value in assignments(slots, storages, tensors):
        if isinstance(slot.owner, torch.jit.ScriptModule):
            slot.owner._c.setattr(slot.attribute, value)
        else:
            setattr(slot.owner, slot.attribute, value)


def assignments(
    slots: Iterable[TensorSlot], storages: Storages, tensors: dict[int, Tensor]
) -> Iterator[tuple[TensorSlot, AttributeValue]]:
    """Yield each slot with the value that belongs there, over these storages.

    A list has one slot for each member, and is yielded once. A tensor that two attributes share is
    shared by their new values. `tensors` are the values assigned previously, by the `id` of the
    slot's tensor: they complete the lists of which only some members change. The new values are
    added to it.
    """
    slots = tuple(slots)
    changed = [slot for slot in slots if slot.record in storages]
    tensors.update(_new_tensors(changed, storages))
    lists = dict[tuple[int, str], TensorSlot]()
    for slot in changed:
        if slot.index is None:
            value = tensors[id(slot.tensor)]
            yield slot, value
        else:
            lists[id(slot.owner), slot.attribute] = slot
    for one_member in lists.values():
        members = _slots_of_list(one_member, slots)
        values = [tensors[id(member.tensor)] for member in members]
        yield one_member, values


def _slots_of_list(one_member: TensorSlot, slots: Iterable[TensorSlot]) -> Iterator[TensorSlot]:
    """Yield the slots of all members of a list, of which one is given."""
    for slot in slots:
        if slot.owner is one_member.owner and slot.attribute == one_member.attribute:
            yield slot


def _new_tensors(slots: Iterable[TensorSlot], storages: Storages) -> dict[int, Tensor]:
    """Return new tensors over these storages, by the `id` of the tensors that they replace."""
    new = dict[int, Tensor]()
    # Parameters first: a buffer that shares the tensor of a parameter becomes that parameter.
    parameters_first = sorted(slots, key=lambda slot: not slot.parameter)
    for slot in parameters_first:
        key = id(slot.tensor)
        if key in new:
            continue
        storage = storages[slot.record]
        new[key] = _new_tensor(slot, storage)
    return new


def _new_tensor(slot: TensorSlot, storage: torch.UntypedStorage) -> Tensor:
    """Return a tensor like that of the slot, over another storage."""
    like = slot.tensor
    empty = torch.empty(0, dtype=like.dtype, device=storage.device)
    offset = like.storage_offset()
    tensor = empty.set_(storage, offset, like.shape, like.stride())
    if slot.parameter:
        return nn.Parameter(tensor, requires_grad=like.requires_grad)
    return tensor


class _Zeros:
    """Makes storages of zeros. Shared ones are the same read-only pages, and occupy no memory."""

    def __init__(self, max_bytes: int) -> None:
        self.shared: mmap.mmap | None = None
        if max_bytes and hasattr(mmap, "MAP_PRIVATE"):
            no_reserve = getattr(mmap, "MAP_NORESERVE", 0)
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | no_reserve
            self.shared = mmap.mmap(-1, max_bytes, flags=flags, prot=mmap.PROT_READ)

    def new_storage(self, size: int) -> torch.UntypedStorage:
        """Return a storage of its own memory, of `size` bytes."""
        zeros = torch.zeros(size, dtype=torch.uint8)
        return zeros.untyped_storage()

    def shared_storage(self, size: int) -> torch.UntypedStorage:
        """Return a storage over the shared pages, of `size` bytes."""
        if self.shared is None:
            return self.new_storage(size)
        return _storage_over(self.shared, 0, size)


def _storage_over(memory: mmap.mmap | bytearray, start: int, size: int) -> torch.UntypedStorage:
    """Return a storage over a part of this memory, without a copy."""
    # torch warns that the memory cannot be written to: nothing here writes to it.
    with warnings.catch_warnings(action="ignore"):
        tensor = torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=start)
        return tensor.untyped_storage()


def find_slots(module: nn.Module, attributes: Attributes) -> tuple[TensorSlot, ...]:
    """Return the tensor slots of a TorchScript module, by the attributes in its archive."""
    owners = dict(module.named_modules(remove_duplicate=False))
    slots = list[TensorSlot]()
    for name, own_attributes in attributes.items():
        owner = owners[name]
        parameters = dict(owner.named_parameters(recurse=False, remove_duplicate=False))
        for key, attribute in own_attributes.items():
            if attribute.is_list:
                for index, tensor in enumerate(getattr(owner, key)):
                    record = attribute.records[index]
                    slot = TensorSlot(owner, name, key, record, tensor, False, index)
                    slots.append(slot)
            elif attribute.records:
                record = attribute.records[0]
                tensor = getattr(owner, key)
                slot = TensorSlot(owner, name, key, record, tensor, key in parameters)
                slots.append(slot)
    return tuple(slots)
