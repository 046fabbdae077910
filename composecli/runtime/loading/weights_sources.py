"""Sources of weights: a pickled checkpoint, a safetensors file, or several of them."""

from __future__ import annotations

import io
import shlex
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Protocol

import torch
from torch import nn

from composecli.files.checkpoint import has_quantized
from composecli.files.checkpoint_archive import checkpoint_skeleton, write_checkpoint
from composecli.files.checkpoint_entries import entries_at
from composecli.files.checkpoint_weights import StateDict, foreign_beside, state_dicts
from composecli.files.members import Members
from composecli.files.shards import NotAnIndex
from composecli.files.weight_names import EXTRA_STATE, Candidate, Fit

MAX_NAMES_SHOWN = 6

Tensors = dict[str, Any]


class Source(Protocol):
    """An open file with weights, and notes on the entries that are not used."""

    candidates: Sequence[Candidate]
    notes: Sequence[str]

    def read(self, place: int, fit: Fit, *, sizes_only: bool) -> Tensors:
        """Return the weights of a candidate by their names in the module."""

    def modes(self, place: int, fit: Fit) -> Mapping[str, bool] | None:
        """Return the modes of a pickled module by the paths in the module, None for others."""

    def foreign(self, place: int) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the entries beside a candidate, and in it, that are not built."""


@dataclass
class PickledWeights:
    """The state dicts and modules of a checkpoint.

    `unpickle` returns all that is in the file, and is None unless it may run code.
    """

    key: str | None
    members: Members
    unpickle: Callable[[], Any] | None = None
    candidates: Sequence[Candidate] = field(init=False)
    notes: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        value = self.members.pickle("data.pkl").value
        self.notes = notes_on_key(value, self.key)
        self._held = state_dicts(value, self.key)
        self.candidates = [held.candidate for held in self._held]

    def read(self, place: int, fit: Fit, *, sizes_only: bool) -> Tensors:
        """Return the weights, which torch unpickles from an archive of them alone."""
        held = self._held[place]
        if held.foreign and self.unpickle is not None:
            return self._built(self.unpickle(), held, fit)
        part = held.part(fit)
        # Sets are no part of tensors, but of the extra state of some modules.
        with torch.serialization.safe_globals([set]):
            tensors: Tensors
            if sizes_only and not has_quantized(part):
                skeleton = io.BytesIO(checkpoint_skeleton(self.members, part))
                tensors = torch.load(skeleton, map_location="meta", weights_only=True)
            else:
                # There are no quantized tensors on meta.
                with write_checkpoint(self.members, part) as file:
                    tensors = torch.load(file, map_location="cpu", weights_only=True)
        return tensors

    def _built(self, value: Any, held: StateDict, fit: Fit) -> Tensors:
        """Return the weights in an unpickled file, and note which entries are none."""
        entries = _entries_in(value, held)
        names = {**_names_of_foreign(entries, held, fit), **fit.renamed}
        left_out = [*self._beside(held), *(name for name in held.foreign if name not in names)]
        if left_out:
            self.notes = (*self.notes, f"not weights, and left out: {shown_names(left_out)}")
        return OrderedDict((names[name], entries[name]) for name in entries if name in names)

    def modes(self, place: int, fit: Fit) -> Mapping[str, bool] | None:
        """Return the modes of a pickled module by the paths in the module, None for others."""
        return self._held[place].modes_in(fit)

    def foreign(self, place: int) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the entries beside a candidate, and in it, that are not built."""
        held = self._held[place]
        if held.foreign and self.unpickle is not None:
            return {}, {}
        return self._beside(held), held.foreign

    def _beside(self, held: StateDict) -> dict[str, str]:
        """Return the objects of other classes beside the weights, with their classes."""
        value = self.members.pickle("data.pkl").value
        return foreign_beside(value, held.candidate.path)


def _entries_in(value: Any, held: StateDict) -> Tensors:
    """Return the entries of a state dict in an unpickled file, of whatever class."""
    for key in held.candidate.path:
        value = entry_of(value, key)
    if isinstance(value, nn.Module):
        value = value.state_dict()
    entries: Tensors = value
    return entries


def _names_of_foreign(entries: Tensors, held: StateDict, fit: Fit) -> dict[str, str]:
    """Return the names in the module of those entries of other classes that belong to it."""
    names = dict[str, str]()
    for name in held.foreign:
        path, _, last = name.rpartition(".")
        if last == EXTRA_STATE or isinstance(entries[name], torch.Tensor):
            names[name] = f"{fit.module_path(path)}.{last}".lstrip(".")
    return names


@dataclass
class SafetensorsWeights:
    """The tensors of a safetensors file."""

    path: str
    candidates: Sequence[Candidate] = field(init=False)
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        from safetensors import safe_open

        sizes = dict[str, tuple[int, ...]]()
        with safe_open(self.path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is not a mapping
                sizes[name] = tuple(file.get_slice(name).get_shape())
        self.candidates = [Candidate((), sizes)]

    def read(self, _place: int, fit: Fit, *, sizes_only: bool) -> Tensors:
        """Return the tensors; if only sizes are needed, float32 ones on meta."""
        from safetensors.torch import load_file

        if not sizes_only:
            stored = load_file(self.path)
            return {inner: stored[name] for name, inner in fit.renamed.items()}
        (candidate,) = self.candidates
        tensors: Tensors = {}
        for name, inner in fit.renamed.items():
            tensors[inner] = torch.empty(candidate.sizes[name] or (), device="meta")
        return tensors

    def modes(self, _place: int, _fit: Fit) -> None:
        """Return nothing: the format holds no modules."""

    def foreign(self, _place: int) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return nothing: the format holds tensors only."""
        return {}, {}


@dataclass
class ShardedWeights:
    """The tensors of several files, each with the names that it has to hold."""

    shards: Sequence[tuple[Source, tuple[str, ...]]]
    candidates: Sequence[Candidate] = field(init=False)
    notes: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        sizes: dict[str, tuple[int, ...] | None] = {}
        others = dict[str, None]()
        for source, names in self.shards:
            held = source.candidates[0].sizes
            for name in names:
                if name not in held:
                    raise NotAnIndex(f"{name} is not in the file where it is said to be")
                sizes[name] = held[name]
            others.update(dict.fromkeys(held.keys() - set(names)))
        self.candidates = [Candidate((), sizes)]
        self.notes = _notes_on_others(sorted(others))

    def read(self, _place: int, fit: Fit, *, sizes_only: bool) -> Tensors:
        """Return the tensors of all files together."""
        tensors: Tensors = {}
        for source, names in self.shards:
            renamed = {name: fit.renamed[name] for name in names if name in fit.renamed}
            part = replace(fit, renamed=renamed)
            tensors.update(source.read(0, part, sizes_only=sizes_only))
        return tensors

    def modes(self, _place: int, _fit: Fit) -> None:
        """Return nothing: a module is never saved in several files."""

    def foreign(self, _place: int) -> tuple[Mapping[str, str], Mapping[str, str]]:
        """Return the objects in the files that are not built."""
        beside, within = dict[str, str](), dict[str, str]()
        for source, _ in self.shards:
            others, inner = source.foreign(0)
            beside.update(others)
            within.update(inner)
        return beside, within


def notes_on_key(value: object, key: str | None) -> tuple[str, ...]:
    """Return the note that a key may mean several entries: which one is taken, and the others."""
    if not key:
        return ()
    entries = tuple(islice(entries_at(value, key), 2))
    if len(entries) < 2:
        return ()
    taken, other = entries
    inner = " of ".join(reversed(taken.path))
    option = shlex.join(("--key", other.key))
    return (f"{key} is taken as {inner}; the entry with dots in its name is {option}",)


def _notes_on_others(names: Sequence[str]) -> tuple[str, ...]:
    """Return the note on tensors of shards that are in a file where the index does not place them.

    A tensor may be in two shards: the index says which of them is meant.
    """
    if not names:
        return ()
    return (f"not in the file where the index places them, and left out: {shown_names(names)}",)


def entry_of(value: Any, key: str) -> Any:
    """Return an entry of an unpickled dict, list or tuple, by the name that `children` gives it."""
    if isinstance(value, list | tuple):
        return value[int(key)]
    if key in value:
        return value[key]
    number = key.strip("[]")
    place = number.removeprefix("key ")
    if place != number:
        return list(value.values())[int(place)]
    return value[int(number)]


def left_out_notes(foreign: Mapping[str, str]) -> Iterator[str]:
    """Yield the note about entries that were not built, by their names and with their classes."""
    if foreign:
        entries = [f"{name} ({kind})" for name, kind in foreign.items()]
        yield f"left out and never built: {shown_names(entries)}"


def shown_names(names: Sequence[str]) -> str:
    """Return the first few names, and the number of the others."""
    text = ", ".join(names[:MAX_NAMES_SHOWN])
    more = len(names) - MAX_NAMES_SHOWN
    if more > 0:
        text += f" and {more} more"
    return text
