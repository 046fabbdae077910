"""The weights in a checkpoint, from the nodes of its pickle: their sizes, and they alone as a node.

They are in state dicts, or in modules of any class, whose tensors have names as in a state dict.

Only tensors, numbers and texts of a checkpoint are ever loaded. An object of any other class beside
them is left out: it is not built, and its class is not imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from composecli.core.key_causes import odd_key
from composecli.core.pytree import TensorSpec
from composecli.files.checkpoint import foreign_names, is_plain, not_plain, why_not_plain
from composecli.files.checkpoint_entries import (
    Entry,
    children,
    entry_at,
    entry_on,
    find_modules,
    find_state_dicts,
    is_tensor,
    items_of,
)
from composecli.files.entry_keys import key_of, plain, words_of
from composecli.files.pickle import Constructed, Global, PickleDict
from composecli.files.pickle_tree import tree_of
from composecli.files.pickled_module import (
    Unreadable,
    is_module,
    state_nodes,
    submodule_count,
    training_flags,
)
from composecli.files.weight_names import Candidate, Fit, Sizes

# More than any checkpoint has, of weights and of submodules without any.
MAX_NAMES = 200_000
MAX_UNREADABLE = 4

# Lightning stores its version beside the state dict of a training class.
_LIGHTNING = "pytorch-lightning_version"
# The sizes of a tensor whose class is not known: no module has such.
_UNKNOWN_SIZES = (-1,)
_ORDERED_DICT = Global("collections", "OrderedDict")


@dataclass(frozen=True, slots=True)
class StateDict:
    """A state dict of a checkpoint.

    `weights` are its nodes by name, and `foreign` the entries of classes that are not loaded, each
    with its class. If it is that of a pickled module, `modes` say which of its submodules are in
    train mode.
    """

    candidate: Candidate
    weights: Mapping[str, object]
    foreign: Mapping[str, str]
    versions: object = None
    modes: Mapping[str, bool] | None = None

    def part(self, fit: Fit) -> Constructed:
        """Return the node of a state dict with these weights, by their names in the module."""
        items = list[tuple[object, object]]()
        for name, inner in fit.renamed.items():
            items.append((inner, self.weights[name]))
        state: PickleDict | None = None
        if self.versions is not None and is_plain(self.versions):
            metadata: tuple[object, object] = ("_metadata", _renamed(self.versions, fit))
            state = PickleDict([metadata])
        return Constructed(_ORDERED_DICT, (), state=state, items=items)

    def modes_in(self, fit: Fit) -> dict[str, bool] | None:
        """Return the modes by the paths that the submodules have in the module."""
        if self.modes is None:
            return None
        return {fit.module_path(path): training for path, training in self.modes.items()}


@dataclass(frozen=True, slots=True)
class _Source:
    """What the state dicts of a checkpoint share.

    `marks` say why nodes are more than data, by their ids.
    """

    marks: Mapping[int, str]
    is_lightning: bool


def state_dicts(value: object, key: str | None) -> tuple[StateDict, ...]:
    """Return the state dicts in a checkpoint that may be meant: all, or those at a dotted key.

    The end of a key may also be the start of names: `state_dict.model` stands for the weights whose
    names start with `model.` there.

    Raises:
        Unreadable: if there are only modules whose tensors cannot be found.
    """
    source = _Source(not_plain(value), _is_lightning(value))
    if not key:
        return _all_below(source, Entry((), value))
    entry = entry_at(value, key)
    if entry is not None:
        return _all_below(source, entry)
    words = words_of(key)
    for length in range(len(words) - 1, -1, -1):
        entry = entry_at(value, ".".join(words[:length]))
        if entry is not None:
            prefix = plain(".".join(words[length:])) + "."
            return tuple(_below(_state_dict(source, entry), prefix))
    return ()


def _all_below(source: _Source, root: Entry) -> tuple[StateDict, ...]:
    """Return the state dicts and modules in an entry of a checkpoint, without unreadable ones.

    Raises:
        Unreadable: if there are no others.
    """
    held = list[StateDict]()
    failures = list[Unreadable]()
    count = 0
    for found in (*find_state_dicts(root.node), *find_modules(root.node)):
        try:
            entry = Entry((*root.path, *found.path), found.node)
            held.append(_state_dict(source, entry))
            count += len(held[-1].weights)
            if is_module(found.node):
                count += submodule_count(found.node)
        except Unreadable as error:
            failures.append(error)
        # Modules that hold each other are a small file with very many names.
        if count > MAX_NAMES or len(failures) > MAX_UNREADABLE:
            break
    if failures and not held:
        raise failures[0]
    return tuple(held)


def foreign_beside(value: object, path: tuple[str, ...]) -> dict[str, str]:
    """Return the entries beside those of a path that hold objects of other classes, with these."""
    found = dict[str, str]()
    foreign = foreign_names(value)
    for depth in range(len(path)):
        entry = entry_on(value, path[:depth])
        if entry is None:
            return found
        for name, child in children(entry.node):
            if name != path[depth] and id(child) in foreign:
                found[key_of((*path[:depth], name))] = foreign[id(child)]
    return found


def _state_dict(source: _Source, entry: Entry) -> StateDict:
    """Return the state dict at an entry of a checkpoint, without what is not loaded of it.

    Raises:
        Unreadable: if it is that of a module whose tensors cannot be found.
    """
    modes: Mapping[str, bool] | None = None
    nodes = dict(_named(items_of(entry.node) or []))
    if is_module(entry.node):
        modes = training_flags(entry.node)
        nodes = dict(state_nodes(entry.node))
    # A tensor may have many names.
    tensors = {id(node): node for node in nodes.values()}
    sizes_of = dict[int, Sizes]()
    classes = dict[int, str]()
    for key, node in tensors.items():
        reason = why_not_plain(node, source.marks)
        if reason is None:
            sizes_of[key] = _sizes(node)
        else:
            classes[key] = reason
    weights = {name: node for name, node in nodes.items() if id(node) in sizes_of}
    foreign = {name: classes[id(node)] for name, node in nodes.items() if id(node) in classes}
    sizes = {name: sizes_of[id(node)] for name, node in weights.items()}
    candidate = Candidate(entry.path, sizes, source.is_lightning)
    return StateDict(candidate, weights, foreign, _versions(entry.node), modes)


def _named(items: list[tuple[object, object]]) -> Iterator[tuple[str, object]]:
    """Yield the entries of a state dict by their names.

    PyTorch loads no state dict with a key that is not text. Such a key gets a name that no module
    has, so that it is an unexpected one.
    """
    for place, (key, node) in enumerate(items):
        if isinstance(key, str):
            yield key, node
        else:
            yield odd_key(place), node


def _below(held: StateDict, prefix: str) -> Iterator[StateDict]:
    """Yield the weights whose names start with a prefix, without it; nothing if there are none."""
    weights = dict[str, object]()
    for name, node in held.weights.items():
        if name.startswith(prefix):
            weights[name.removeprefix(prefix)] = node
    if weights:
        sizes = {name: _sizes(node) for name, node in weights.items()}
        path = (*held.candidate.path, prefix.removesuffix("."))
        modes = _modes_below(held.modes, prefix)
        yield StateDict(Candidate(path, sizes), weights, {}, modes=modes)


def _modes_below(modes: Mapping[str, bool] | None, prefix: str) -> dict[str, bool] | None:
    """Return the modes of a submodule and of those in it, by their paths below a prefix."""
    if modes is None:
        return None
    inner = dict[str, bool]()
    for path, training in modes.items():
        words = f"{path}."
        if words.startswith(prefix):
            inner[words.removeprefix(prefix).removesuffix(".")] = training
    return inner


def _sizes(node: object) -> Sizes:
    """Return the sizes of a tensor, None for anything else."""
    tree = tree_of(node)
    if isinstance(tree, TensorSpec):
        return tree.sizes
    if is_tensor(node):
        return _UNKNOWN_SIZES
    return None


def _is_lightning(value: object) -> bool:
    """Return whether a checkpoint is of PyTorch Lightning."""
    return any(name == _LIGHTNING for name, _ in children(value))


def _versions(node: object) -> object:
    """Return the versions of modules that PyTorch stores with a state dict, None without them."""
    if isinstance(node, Constructed) and isinstance(node.state, PickleDict):
        return node.state.get("_metadata")
    return None


def _renamed(versions: object, fit: Fit) -> Constructed:
    """Return the versions by the paths of their submodules in the module."""
    items = dict[object, object]()
    for path, version in items_of(versions) or []:
        if isinstance(path, str):
            items[fit.module_path(path)] = version
    return Constructed(_ORDERED_DICT, (), items=list(items.items()))
