"""Reading weights: which of a file's tensors fit a module, and these alone.

They are chosen by their names and sizes, before any value is read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.rules import Rule
from composecli.files.checkpoint_entries import Selector, children, entry_at, find_state_dicts
from composecli.files.entry_keys import key_of, words_of
from composecli.files.members import Members, open_members
from composecli.files.pickled_module import Unreadable
from composecli.files.safety.refusals import damaged
from composecli.files.safety.remedies import TRUST_EFFECT, for_class
from composecli.files.shards import NotAnIndex
from composecli.files.sniff import ModelFile, WeightsFile, WeightsFormat, sniff
from composecli.files.weight_names import (
    Candidate,
    Choice,
    NamedSizes,
    choose,
    fit_names,
    fitting_parts,
)
from composecli.runtime.error_text import telling_line
from composecli.runtime.loading.admission import admit_copy, admit_members, no_scan, selector
from composecli.runtime.loading.own_code import load_trusted, own_modules
from composecli.runtime.loading.shard_requests import shard_requests
from composecli.runtime.loading.strict_keys import Weights
from composecli.runtime.loading.weights_sources import (
    PickledWeights,
    SafetensorsWeights,
    ShardedWeights,
    Source,
    left_out_notes,
    shown_names,
)
from composecli.runtime.model import could_not_load
from composecli.workers.protocol import OpenRequest

MAX_SUGGESTED = 3
MAX_ENTRIES = 6
MAX_MISFITS = 2


def read_weights(request: OpenRequest, wanted: NamedSizes, *, sizes_only: bool) -> Weights:
    """Return the weights of the request's file that fit names and sizes of a module.

    If only sizes are needed, no values are read.

    Raises:
        CouldNotAttempt: if the file is not admitted, has no weights, or several that fit.
    """
    try:
        with _open(request) as source:
            choice = _choose(request, source.candidates, wanted)
            state = source.read(choice.place, choice.fit, sizes_only=sizes_only)
            beside, within = source.foreign(choice.place)
            candidate = source.candidates[choice.place]
            notes = tuple(_notes(request, candidate, choice, {**beside, **within}))
            notes += tuple(source.notes)
            remedies = tuple(_remedies(request, candidate, wanted, within))
            modes = source.modes(choice.place, choice.fit)
            return Weights(state, notes, remedies, modes)
    except CouldNotAttempt:
        raise
    except NotAnIndex as error:
        title = "the index does not fit its files"
        raise CouldNotAttempt(damaged(request.path, str(error), title=title)) from error
    except Unreadable as error:
        raise _unreadable(request, error) from error
    except Exception as error:
        raise could_not_load(request, error) from error


def has_fitting_entry(request: OpenRequest, wanted: NamedSizes) -> bool:
    """Return whether an entry of the request's file has all names and sizes of a module.

    Raises:
        CouldNotAttempt: if the file is not admitted, or has no weights.
    """
    with _open(request) as source:
        return any(fit_names(candidate, wanted).exact for candidate in source.candidates)


@contextmanager
def _open(request: OpenRequest) -> Iterator[Source]:
    """Open the weights of a request; a trusted file is copied first.

    Raises:
        CouldNotAttempt: if the file is not admitted, or a package is missing to read it.
    """
    path = request.path
    found = sniff(path, selector(request))
    if isinstance(found, Problem):
        raise CouldNotAttempt(found)
    form = WeightsFormat.PICKLED
    if isinstance(found, WeightsFile):
        form = found.format
    with ExitStack() as stack:
        if form is WeightsFormat.SHARDS:
            shards = [
                (stack.enter_context(_open(shard)), names)
                for shard, names in shard_requests(request).items()
            ]
            yield ShardedWeights(shards)
            return
        copy: Path | None = None
        if request.trusted:
            copy = stack.enter_context(admit_copy(request, no_scan))
        if form is WeightsFormat.SAFETENSORS:
            yield _open_safetensors(request, str(copy or path))
        elif copy is not None:
            yield _open_pickled(request, stack.enter_context(open_members(copy)), copy)
        else:
            yield _open_pickled(request, stack.enter_context(admit_members(request)), None)


def _open_pickled(request: OpenRequest, members: Members, copy: Path | None) -> Source:
    """Return the state dicts of an open checkpoint.

    Raises:
        CouldNotAttempt: if it has none, or none at the key.
    """
    unpickle: Callable[[], Any] | None = None
    if copy is not None:
        unpickle = partial(load_trusted, request, copy, "cpu")
    weights = PickledWeights(request.key, members, unpickle)
    if not weights.candidates:
        raise _no_weights(request, members.pickle("data.pkl").value)
    return weights


def _open_safetensors(request: OpenRequest, path: str) -> Source:
    """Open a safetensors file.

    Raises:
        CouldNotAttempt: if the package is missing or the file is damaged.
    """
    name = request.reference.name
    try:
        return SafetensorsWeights(path)
    except ImportError as error:
        title = "the weights are in safetensors format but that package is not installed"
        help = ("pip install safetensors",)
        problem = Problem(Rule.PACKAGE_MISSING, title, name, help=help)
        raise CouldNotAttempt(problem) from error
    except Exception as error:
        title = "the safetensors file could not be read"
        notes = (telling_line(error),)
        problem = Problem(Rule.COULD_NOT_LOAD, title, name, notes)
        raise CouldNotAttempt(problem) from error


def _choose(request: OpenRequest, candidates: Sequence[Candidate], wanted: NamedSizes) -> Choice:
    """Return the state dict that fits a module best.

    Raises:
        CouldNotAttempt: if several fit, and nothing says which one is meant.
    """
    choice = choose(candidates, wanted)
    if choice is not None:
        return choice
    keys = [candidate.key for candidate in candidates]
    title = "several entries of the checkpoint fit the module"
    notes = (f"its state dicts: {shown_names(keys)}",)
    remedies = tuple(Remedy(("--key", key)) for key in keys[:MAX_ENTRIES])
    name = request.reference.name
    problem = Problem(Rule.KEYS_DO_NOT_FIT, title, name, notes, remedies=remedies)
    raise CouldNotAttempt(problem)


def _notes(
    request: OpenRequest, candidate: Candidate, choice: Choice, foreign: Mapping[str, str]
) -> Iterator[str]:
    """Yield notes on the choice of the weights, and on stripped and skipped names."""
    if candidate.path and not request.key:
        yield f"the weights are the entry {candidate.key} of the checkpoint"
    for key, why in tuple(choice.misfits.items())[:MAX_MISFITS]:
        yield f"{key} does not fit: {why}"
    if choice.rivals:
        yield f"{shown_names(choice.rivals)} would fit, too: --key {choice.rivals[0]}"
    if choice.fit.stripped:
        yield f"stripped from the names of the weights: {shown_names(choice.fit.stripped)}"
    if choice.fit.left_out:
        yield f"not weights, and left out: {shown_names(choice.fit.left_out)}"
    yield from left_out_notes(foreign)


def _remedies(
    request: OpenRequest,
    candidate: Candidate,
    wanted: NamedSizes,
    foreign: Mapping[str, str],
) -> Iterator[Remedy]:
    """Yield remedies for weights that do not fit: choose a part of them, or trust the file."""
    for words in fitting_parts(candidate, wanted):
        key = key_of((*candidate.path, *words.split(".")))
        effect = f"takes the weights whose names start with {words}."
        yield Remedy(("--key", key), effect=effect)
    if not foreign.keys().isdisjoint(wanted):
        yield Remedy(("--trust", request.path), effect=f"builds all of its entries: {TRUST_EFFECT}")


def _no_weights(request: OpenRequest, value: object) -> CouldNotAttempt:
    """Return the error for a checkpoint without weights, or without them at the key."""
    key = request.key
    title = "the checkpoint has no entry that is clearly the weights"
    help: tuple[str, ...] = ("name the entry that holds the weights: --key NAME",)
    remedies = tuple(Remedy(("--key", entry.key)) for entry in find_state_dicts(value))
    names = [name for name, _ in children(value)]
    notes = (f"it contains: {shown_names(names) or 'nothing'}",)
    if key:
        entry = entry_at(value, key)
        if entry is None:
            title = f"the checkpoint has no key {key}"
            help = ("name one of them with --key",)
            remedies = (*_similar_entries(value, key), *remedies)
            notes = (f"available keys: {shown_names(names) or 'nothing'}",)
        else:
            inner = [name for name, _ in children(entry.node)]
            notes = (f"{key} contains: {shown_names(inner) or type(entry.node).__name__}",)
    if remedies:
        help = ()
    problem = Problem(
        Rule.KEYS_DO_NOT_FIT,
        title,
        request.reference.name,
        notes,
        help,
        remedies=remedies[:MAX_SUGGESTED],
    )
    return CouldNotAttempt(problem)


def _similar_entries(value: object, key: str) -> Iterator[Remedy]:
    """Yield the remedy that replaces the first part of a key that is not there by a similar one."""
    done = list[str]()
    for step in words_of(key):
        entry = entry_at(value, ".".join((*done, step)))
        if entry is None:
            holder = entry_at(value, ".".join(done))
            names = [name for name, _ in children(holder and holder.node)]
            for name in difflib.get_close_matches(step, names, 1):
                words = (*done, key_of((name,)), *words_of(key)[len(done) + 1 :])
                yield Remedy(("--key", ".".join(words)))
            return
        done.append(step)


def _unreadable(request: OpenRequest, error: Unreadable) -> CouldNotAttempt:
    """Return the error for a pickled module whose tensors only its own code can find."""
    title = "the pickled module cannot be read without running it"
    name = request.reference.name
    remedies = (trust_alone(request),)
    problem = Problem(Rule.COULD_NOT_LOAD, title, name, (str(error),), remedies=remedies)
    return CouldNotAttempt(problem)


def trust_alone(request: OpenRequest) -> Remedy:
    """Return the remedy that unpickles the module as it is, with the classes of the factory."""
    words = ["--trust", request.path]
    for name in own_modules(request):
        words += ["--import", name]
    return Remedy(tuple(words), request.path, TRUST_EFFECT)


def pickled_module(request: OpenRequest) -> ModelFile | None:
    """Return the file of a factory as a model of its own, None if it holds weights alone."""
    found = sniff(request.path, Selector(request.key))
    if isinstance(found, ModelFile):
        return found
    return None


def other_calls(request: OpenRequest, file: ModelFile) -> tuple[Remedy, ...]:
    """Return the remedies that call the pickled class with the arguments that it has stored."""
    if file.checkpoint is None or file.checkpoint.pickled is None:
        return ()
    calls = for_class(request.path, file.checkpoint.pickled)
    return tuple(call for call in calls if call.model != request.reference.name)
