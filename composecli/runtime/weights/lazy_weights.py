"""Weights: what a model's tensors hold, read when an answer depends on it.

A model is loaded without its tensors. In the place of each stands one of the same sizes that holds zeros, and takes
memory only where it is small; where values are needed, the records of the file are mapped into their places.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from composecli.files.archive import Archive
from composecli.files.torchscript import Attributes

# Larger parameters are zeros that all share, and later pages of the file: they take no memory, and cannot be written
# to.
LARGEST_OWN = 2**16


@dataclass(frozen=True)
class TensorSlot:
    """An attribute of a submodule that holds a tensor, in a list of them where it has an `index`, and the record of the
    file that it lies in."""

    owner: nn.Module
    module: str
    attribute: str
    record: str
    tensor: torch.Tensor
    parameter: bool
    index: int | None = None

    @property
    def name(self) -> str:
        return f"{self.module}.{self.attribute}".lstrip(".")


@dataclass(frozen=True, slots=True)
class Reading:
    """These records were read, all where none is named: what, and which op asked for it."""

    note: str
    records: tuple[str, ...] = ()


@dataclass
class Weights:
    """The places of a model's tensors, and what was read of them for an op."""

    archive: Archive
    places: tuple[TensorSlot, ...]
    readings: list[Reading] = field(default_factory=list)
    _storages: dict[str, torch.UntypedStorage] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=set)
    _own: set[str] = field(default_factory=set)
    _fresh: set[str] = field(default_factory=set)
    _held: dict[int, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The archive is closed when all is loaded, and no file can be opened while a model runs.
        self._file: Any = mmap.mmap(self.archive.fileno(), 0, access=mmap.ACCESS_READ)

    def leave_out(self) -> None:
        """Put zeros into every place."""
        records = {place.record for place in self.places}
        own = {place.record for place in self.places if not place.parameter}
        self._own = own | {record for record in records if self.archive.size(record) <= LARGEST_OWN}
        zeros = _Zeros(max(map(self.archive.size, records - self._own), default=0))
        for record in records:
            size = self.archive.size(record)
            self._storages[record] = (
                zeros.storage(size) if record in self._own else zeros.shared_storage(size)
            )
        self._unread = records
        self._put(records)

    @property
    def unread(self) -> Mapping[str, torch.UntypedStorage]:
        """The storages that hold no values, by the record that would fill them."""
        return {record: self._storages[record] for record in self._unread}

    @property
    def fixed(self) -> frozenset[int]:
        """The storages that cannot be written to."""
        return frozenset(
            storage._cdata for record, storage in self._storages.items() if record not in self._own
        )

    def read(self, records: Collection[str] | None = None, op: str | None = None) -> None:
        """Read these records into their places, all where none are named. `op` is what asks for their values."""
        wanted = self._unread if records is None else self._unread & set(records)
        if wanted and op is not None:
            names = sorted({place.name for place in self.places if place.record in wanted})
            size = sum(map(self.archive.size, wanted))
            shown = "all tensors" if records is None else ", ".join(names)
            note = f"the values of {shown} were read ({size:,} bytes): {op} depends on them"
            self.readings.append(Reading(note, () if records is None else tuple(sorted(wanted))))
        for record in wanted:
            self._read(record)
        self._unread = self._unread - wanted
        self._put({record for record in wanted if record not in self._own})

    def on_meta(self) -> Iterator[tuple[str, str, torch.Tensor | list[torch.Tensor]]]:
        """For each attribute, by submodule and name, tensors like those that belong there and without memory; places
        that share a record share it there."""
        sizes = {place.record: self.archive.size(place.record) for place in self.places}
        storages = {
            record: torch.UntypedStorage(size, device="meta") for record, size in sizes.items()
        }
        modules = {id(place.owner): place.module for place in self.places}
        for owner, attribute, value in assignments(self.places, storages, {}):
            yield modules[id(owner)], attribute, value

    def has_own_memory(self, record: str) -> bool:
        """Whether it gets its values without becoming another tensor."""
        return record in self._own

    def _read(self, record: str) -> None:
        start, size = self.archive.start(record), self.archive.size(record)
        if record not in self._own:
            self._storages[record] = _over(self._file, start, size)
        elif size:
            held = torch.frombuffer(bytearray(self._file[start : start + size]), dtype=torch.uint8)
            self._storages[record].copy_(held.untyped_storage())
            self._fresh.add(record)

    def reload(self) -> None:
        """Read again what was read in the midst of a forward, at whose end the state before it was put back."""
        for record in tuple(self._fresh):
            self._read(record)
        self._fresh.clear()

    def _put(self, records: Iterable[str]) -> None:
        assign(self.places, {record: self._storages[record] for record in records}, self._held)


@dataclass
class LazyWeights:
    """The tensors of a module that was made by a factory: those of its file, once an answer depends on their values."""

    module: nn.Module
    load: Callable[[], None]
    readings: list[Reading] = field(default_factory=list)
    places: tuple[TensorSlot, ...] = ()
    fixed: frozenset[int] = frozenset()
    _read: bool = False

    @property
    def unread(self) -> Mapping[str, torch.UntypedStorage]:
        """The storages that do not hold the values of the file, by the names of their tensors."""
        if self._read:
            return {}
        tensors = self.module.state_dict().items()
        return {
            name: tensor.untyped_storage()
            for name, tensor in tensors
            if tensor.layout is torch.strided
        }

    def read(self, _records: Collection[str] | None = None, op: str | None = None) -> None:
        """Load all of them."""
        if not self._read:
            self._read = True
            if op is not None:
                self.readings.append(
                    Reading(f"the values of all tensors were read: {op} depends on them")
                )
            self.load()

    def has_own_memory(self, _record: str) -> bool:
        """None is read in the midst of a forward."""
        return False

    def on_meta(self) -> tuple[()]:
        """None: they are in memory, and are saved from there."""
        return ()

    def reload(self) -> None:
        """Nothing is read in the midst of a forward."""


AnyWeights = Weights | LazyWeights


def assign(
    places: Iterable[TensorSlot],
    storages: Mapping[str, torch.UntypedStorage],
    held: dict[int, torch.Tensor] | None = None,
) -> None:
    """Tensors over these storages, by record, into the places. `held` are those that are there already, and then also
    these, by the place that they belong to."""
    for owner, attribute, value in assignments(places, storages, held if held is not None else {}):
        if isinstance(owner, torch.jit.ScriptModule):
            owner._c.setattr(attribute, value)
        else:
            setattr(owner, attribute, value)


def assignments(
    places: Iterable[TensorSlot],
    storages: Mapping[str, torch.UntypedStorage],
    held: dict[int, torch.Tensor],
) -> Iterator[tuple[nn.Module, str, torch.Tensor | list[torch.Tensor]]]:
    """What goes into each attribute; where one tensor is held in two, it is one there, too."""
    places = tuple(places)
    touched = [place for place in places if place.record in storages]
    made = dict[int, torch.Tensor]()
    for place in sorted(touched, key=lambda place: not place.parameter):
        key = id(place.tensor)
        if key not in made:
            made[key] = _tensor(place, storages[place.record])
    held.update(made)
    lists = dict[tuple[int, str], TensorSlot]()
    for place in touched:
        if place.index is None:
            yield place.owner, place.attribute, made[id(place.tensor)]
        else:
            lists[id(place.owner), place.attribute] = place
    for where, place in lists.items():
        members = [other for other in places if (id(other.owner), other.attribute) == where]
        yield place.owner, place.attribute, [held[id(member.tensor)] for member in members]


def _tensor(place: TensorSlot, storage: torch.UntypedStorage) -> torch.Tensor:
    was = place.tensor
    made = torch.empty(0, dtype=was.dtype, device=storage.device).set_(
        storage, was.storage_offset(), was.shape, was.stride()
    )
    return nn.Parameter(made, requires_grad=was.requires_grad) if place.parameter else made


class _Zeros:
    """Storages of zeros. Those that are shared are one and the same memory, for reading alone, which takes none."""

    def __init__(self, largest: int) -> None:
        self.shared: mmap.mmap | None = None
        if largest and hasattr(mmap, "MAP_PRIVATE"):
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
            self.shared = mmap.mmap(-1, largest, flags=flags, prot=mmap.PROT_READ)

    def storage(self, size: int) -> torch.UntypedStorage:
        return torch.zeros(size, dtype=torch.uint8).untyped_storage()

    def shared_storage(self, size: int) -> torch.UntypedStorage:
        return _over(self.shared, 0, size) if self.shared is not None else self.storage(size)


def _over(memory: mmap.mmap, start: int, size: int) -> torch.UntypedStorage:
    with warnings.catch_warnings(action="ignore"):
        return torch.frombuffer(
            memory, dtype=torch.uint8, count=size, offset=start
        ).untyped_storage()


def places_of(module: nn.Module, held: Attributes) -> tuple[TensorSlot, ...]:
    """The places of the tensors of a TorchScript module, by what its archive says that it holds."""
    owners = dict(module.named_modules(remove_duplicate=False))
    found = list[TensorSlot]()
    for name, inner in held.items():
        owner = owners[name]
        parameters = {
            own for own, _ in owner.named_parameters(recurse=False, remove_duplicate=False)
        }
        for key, attribute in inner.items():
            if attribute.listed:
                tensors = enumerate(getattr(owner, key))
                found += [
                    TensorSlot(owner, name, key, attribute.records[n], tensor, False, n)
                    for n, tensor in tensors
                ]
            elif attribute.records:
                found.append(
                    TensorSlot(
                        owner,
                        name,
                        key,
                        attribute.records[0],
                        getattr(owner, key),
                        key in parameters,
                    )
                )
    return tuple(found)
