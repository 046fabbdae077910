"""Entries of a checkpoint: where the modules and the state dicts in its pickle are.

Training code saves them beside other things: `{"model": module, "ema": None, "epoch": 3}`, or
`{"state_dict": {...}, "optimizer_states": [...]}`. Everything here looks at parsed nodes: no object
of the file is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from composecli.core.key_causes import odd_key
from composecli.files.entry_keys import key_of, rests_behind
from composecli.files.pickle import Constructed, Global, PickleDict, name_of
from composecli.files.pickled_module import is_module

# Checkpoints nest a few dicts: `{"callbacks": {"EMA": {"shadow": {...}}}}`.
MAX_DEPTH = 5
MAX_ENTRIES = 100_000

# Entries that training code keeps for itself: they hold tensors and modules, but no model.
_TRAINING_STATE = re.compile(
    r"(?i)(.*_)?(optim|optimi[sz]ers?|optims|(lr_?)?schedulers?|scaler|loops|rng)(_.*)?"
)
_TRAINING_MODULES = re.compile(
    r"(?i)(.*_)?(criterion|criteria|loss|losses|loss_?fn|metrics?|hyper_?parameters|hparams|args"
    r"|config)(_.*)?"
)
# The keys of every `Optimizer.state_dict()`, under whatever name it is saved.
_OPTIMIZER_KEYS = frozenset(("state", "param_groups"))
_MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter")


@dataclass(frozen=True, slots=True)
class Selector:
    """Which part of a checkpoint is meant: the entry at `key`, and `weights` or a module.

    The module may be of the classes of these `libraries`, which the user trusts.
    """

    key: str | None = None
    weights: bool = False
    libraries: tuple[str, ...] = ()


ANY_MODEL = Selector()


@dataclass(frozen=True, slots=True)
class Entry:
    """A part of a checkpoint, and the keys that lead to it from the outermost dict.

    A module is taken out of wrappers such as DataParallel, by the attributes `unwrapped`.
    """

    path: tuple[str, ...]
    node: object
    unwrapped: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The dotted key that names it on the command line; empty for the whole checkpoint."""
        return key_of(self.path)


def items_of(node: object) -> list[tuple[object, object]] | None:
    """Return the keys and values of a dict, None if a node is none.

    An object that is filled like a dict is one: a subclass of dict, such as a configuration. Python
    2 pickled an OrderedDict as a call with a list of pairs.
    """
    if isinstance(node, PickleDict):
        return node.items
    if not isinstance(node, Constructed):
        return None
    if name_of(node.function) in _MAPPINGS:
        return [*_pairs(node.arguments), *node.items]
    keyed = [item for item in node.items if item[0] is not None]
    return keyed or None


def _pairs(arguments: object) -> Iterator[tuple[object, object]]:
    """Yield the keys and values in the argument of an OrderedDict."""
    match arguments:
        case (list(pairs),):
            for pair in pairs:
                match pair:
                    case [key, value]:
                        yield key, value


def children(node: object) -> list[tuple[str, object]]:
    """Return the entries directly inside a dict or a sequence, by their names.

    A number as a key is its own name: `{0: ...}` has the entry `0`. If a text has that name, too,
    the number is in brackets: `[0]`. A key of another type has its place in the dict: `[key 3]`.
    """
    items = items_of(node)
    if items is not None:
        return list(_named(items))
    if isinstance(node, list | tuple):
        return [(str(number), value) for number, value in enumerate(node)]
    return []


def _named(items: list[tuple[object, object]]) -> Iterator[tuple[str, object]]:
    """Yield the entries by their names."""
    texts = {key for key, _ in items if isinstance(key, str)}
    for place, (key, value) in enumerate(items):
        if isinstance(key, str):
            yield key, value
            continue
        name = odd_key(place)
        if isinstance(key, int) and not isinstance(key, bool):
            name = str(key)
        while name in texts:
            name = f"[{name}]"
        yield name, value


def is_training_state(name: str) -> bool:
    """Return whether an entry of this name is what an optimizer, or training itself, stores."""
    return name in _OPTIMIZER_KEYS or _TRAINING_STATE.fullmatch(name) is not None


def is_tensor(node: object) -> bool:
    """Return whether a node is a tensor, a parameter or an object that wraps one."""
    if not isinstance(node, Constructed) or not isinstance(node.function, Global):
        return False
    is_of_torch = node.function.module.split(".")[0] == "torch"
    return is_of_torch and node.function.name.startswith("_rebuild_")


def is_state_dict(node: object) -> bool:
    """Return whether a node is a dict with a tensor in it."""
    items = items_of(node)
    if items is None:
        return False
    return any(isinstance(key, str) and is_tensor(value) for key, value in items)


def find_modules(value: object) -> tuple[Entry, ...]:
    """Return the modules in a checkpoint, without losses and those inside other modules."""
    return tuple(_search(value, is_module, (_TRAINING_STATE, _TRAINING_MODULES)))


def find_training_modules(value: object) -> tuple[Entry, ...]:
    """Return the modules that only training uses, by their names: losses and metrics."""
    named = {entry.path for entry in find_modules(value)}
    found = _search(value, is_module, (_TRAINING_STATE,))
    return tuple(entry for entry in found if entry.path not in named)


def find_state_dicts(value: object) -> tuple[Entry, ...]:
    """Return the state dicts in a checkpoint, without those in the state of an optimizer."""
    return tuple(_search(value, is_state_dict, (_TRAINING_STATE,)))


def entry_at(value: object, key: str) -> Entry | None:
    """Return the entry at a key, None if there is none. It is the innermost one if several are."""
    return next(entries_at(value, key), None)


def entries_at(value: object, key: str) -> Iterator[Entry]:
    """Yield the entries that a key may mean, the one with the shortest names first.

    `a.b` is the entry `b` of `a`, and the entry `a.b`.
    """
    todo = [(Entry((), value), key)]
    while todo:
        entry, rest = todo.pop()
        if not rest:
            yield entry
            continue
        inner = list[tuple[Entry, str]]()
        for name, child in children(entry.node):
            for behind in rests_behind(name, rest):
                inner.append((Entry((*entry.path, name), child), behind))
        # The last one is taken first.
        todo += sorted(inner, key=lambda item: len(item[1]))


def entry_on(value: object, path: tuple[str, ...]) -> Entry | None:
    """Return the entry at the end of a path of names, None if there is none."""
    node = value
    for name in path:
        inner = dict(children(node))
        if name not in inner:
            return None
        node = inner[name]
    return Entry(path, node)


def _search(
    value: object, is_wanted: Callable[[object], bool], skipped: tuple[re.Pattern[str], ...]
) -> Iterator[Entry]:
    """Yield each wanted entry once, in the order of the file, the outer ones first.

    Entries whose names match one of the `skipped` patterns are passed over.
    """
    visited = set[int]()
    level = [Entry((), value)]
    while level:
        deeper = list[Entry]()
        for entry in level:
            if id(entry.node) in visited or len(visited) > MAX_ENTRIES:
                continue
            visited.add(id(entry.node))
            if is_wanted(entry.node):
                yield entry
            if len(entry.path) < MAX_DEPTH and not is_module(entry.node):
                deeper.extend(_inner(entry, skipped))
        level = deeper


def _inner(entry: Entry, skipped: tuple[re.Pattern[str], ...]) -> Iterator[Entry]:
    """Yield the entries inside an entry that may hold others, without those to skip."""
    inner = children(entry.node)
    if _OPTIMIZER_KEYS.issubset(name for name, _ in inner):
        return
    for name, child in inner:
        is_container = isinstance(child, Constructed | PickleDict | list | tuple)
        if not is_container or is_tensor(child):
            continue
        if not any(pattern.fullmatch(name) for pattern in skipped):
            yield Entry((*entry.path, name), child)
