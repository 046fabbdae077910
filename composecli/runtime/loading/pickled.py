"""Pickled modules: torch.nn's own classes load as they are, any other only from a trusted file."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import torch
import torch.nn.modules
from torch import nn
from torch.utils.hooks import RemovableHandle

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.activations import FUNCTIONAL, NATIVE, OF_TORCH, names_of_torch
from composecli.files.archive import Archive
from composecli.files.checkpoint import chosen_module, is_layer, layers, scan_checkpoint
from composecli.files.checkpoint_archive import (
    checkpoint_skeleton,
    record_starts,
    whole_skeleton,
    write_checkpoint,
)
from composecli.files.checkpoint_entries import Entry, find_state_dicts, find_training_modules
from composecli.files.checkpoint_weights import foreign_beside
from composecli.files.library_classes import is_text_in_place_of_a_method
from composecli.files.members import Members, open_members
from composecli.files.pickle import name_of, reachable
from composecli.files.safety.refusals import of_checkpoint, of_overrides
from composecli.files.safety.remedies import for_checkpoint, for_class
from composecli.files.skeleton import has_foreign_byte_order
from composecli.files.weight_hooks import WEIGHT_HOOKS
from composecli.files.weight_names import Candidate
from composecli.runtime.error_text import telling_line
from composecli.runtime.loading.admission import admit_copy, admit_members, no_scan, selector
from composecli.runtime.loading.lazy import Attempt, NotAModel, NotLazy, load_lazily
from composecli.runtime.loading.library_classes import Named, granted_globals
from composecli.runtime.loading.missing_module import import_remedies
from composecli.runtime.loading.own_code import NoSuchClass, load_trusted
from composecli.runtime.loading.weights_sources import entry_of, left_out_notes, notes_on_key
from composecli.runtime.model import (
    Model,
    could_not_load,
    eager_arguments,
    set_training,
)
from composecli.runtime.weights.lazy_weights import ArchiveWeights, TensorSlot
from composecli.workers.protocol import OpenRequest

# Containers that are searched for tensors, at most this deep.
MAX_CONTAINER_DEPTH = 4
MAX_OTHERS = 2
_HOOK_TABLES = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class PickledLoader:
    """Loads pickled modules, also those in a dict or in the old format."""

    def load(self, request: OpenRequest) -> Model:
        """Load the module, without its tensors if possible; otherwise a note states why not.

        Raises:
            CouldNotAttempt: if the file is not admitted or cannot be loaded.
        """
        return load_lazily(request, _open_lazily, self.load_whole)

    def load_whole(self, request: OpenRequest) -> Model:
        """Load the module with all its tensors in memory.

        Raises:
            CouldNotAttempt: if the file is not admitted or cannot be loaded.
        """
        if not request.trusted:
            with admit_members(request) as members:
                return _read_whole(request, members, None)
        with admit_copy(request, no_scan) as copy, open_members(copy) as members:
            return _read_whole(request, members, copy)


LOADER = PickledLoader()


def _open_lazily(request: OpenRequest) -> Attempt:
    """Return the module of a pickle without its tensors, or the reason to read the whole file."""
    with admit_members(request) as members:
        if has_foreign_byte_order(members):
            return NotLazy("they are stored in an unusual way")
        try:
            return _load_skeleton(request, members)
        except CouldNotAttempt:
            raise
        except Exception as error:
            return NotLazy(f"without them it does not load ({telling_line(error)[:80]})")


def _load_skeleton(request: OpenRequest, members: Members) -> Attempt:
    """Return the module of an open file, with lazy weights in the place of its tensors."""
    entry = _entry(request, members)
    granted = granted_globals(request, entry.node)
    needs_trust = _needs_trust(request, members, entry, granted)
    if needs_trust:
        if not isinstance(members, Archive):
            return NotLazy("the old format is trusted as a whole")
        skeleton = whole_skeleton(members)
        module = _descend(load_trusted(request, io.BytesIO(skeleton), "meta"), entry)
    else:
        skeleton = checkpoint_skeleton(members, entry.node)
        module = _load_layers(io.BytesIO(skeleton), "meta", granted)
    if not isinstance(module, nn.Module):
        return NotAModel()
    _refuse_malformed(request, module)
    weights = None
    if request.device != "meta":
        starts = record_starts(skeleton)
        slots = tuple(_slots(module, starts))
        weights = ArchiveWeights(members, slots)
        weights.fill_with_zeros()
        if _has_tensors_without_memory(module):
            return NotLazy("some are in data structures of the model's own")
    return _model(
        request, module, _notes(members, entry, request.key, runs_all=needs_trust), weights
    )


def _read_whole(request: OpenRequest, members: Members, copy: Path | None) -> Model:
    """Return the module of a file with its tensors; other objects are refused as no model.

    `copy` is the file if it is trusted.
    """
    entry = _entry(request, members)
    granted = granted_globals(request, entry.node)
    needs_trust = _needs_trust(request, members, entry, granted)
    if needs_trust and copy is not None:
        load = partial(_load_trusted_part, request, copy, entry)
    else:
        load = partial(_load_part, request, members, entry, granted)
    module = _unpickle(request, members, load)
    if not isinstance(module, nn.Module):
        title = f"the file holds a {type(module).__name__}, not a module"
        problem = Problem(Rule.NOT_A_MODEL, title, request.reference.name)
        raise CouldNotAttempt(problem)
    _refuse_malformed(request, module)
    return _model(request, module, _notes(members, entry, request.key, runs_all=needs_trust), None)


def _model(
    request: OpenRequest,
    module: nn.Module,
    notes: tuple[str, ...],
    weights: ArchiveWeights | None,
) -> Model:
    """Return a module as a model, in the training state of the request."""
    set_training(module, request.training)
    _keep_hooks(module)
    return Model(module, request, eager_arguments(module), {}, notes, weights)


def _keep_hooks(module: nn.Module) -> None:
    """Make later hooks of this process get other numbers than those that the file has hooks by.

    PyTorch numbers hooks from 0 in each process, and a new one would take the place of an old one.
    """
    numbers = [RemovableHandle.next_id]
    for inner in module.modules():
        for name in _HOOK_TABLES:
            table = inner.__dict__.get(name) or {}
            numbers += [number + 1 for number in table if type(number) is int]
    RemovableHandle.next_id = max(numbers)


def _notes(members: Members, entry: Entry, key: str | None, *, runs_all: bool) -> tuple[str, ...]:
    """Return notes on the entry that is the module, and on objects beside it that are not built."""
    notes = list[str]()
    if entry.unwrapped:
        notes.append(f"the module is taken out of its wrapper: {'.'.join(entry.unwrapped)}")
    if not entry.path:
        return tuple(notes)
    value = members.pickle("data.pkl").value
    notes = [*notes, f"the module is the entry {entry.key} of the checkpoint"]
    notes += notes_on_key(value, key)
    if key is None:
        notes += _notes_on_others(value)
    if not runs_all:
        foreign = foreign_beside(value, entry.path)
        notes += left_out_notes(foreign)
    return tuple(notes)


def _notes_on_others(value: object) -> Iterator[str]:
    """Yield notes on entries that might be meant, too, and were not taken for the module."""
    for entry in find_training_modules(value)[:MAX_OTHERS]:
        option = shlex.join(("--key", entry.key))
        yield f"{entry.key} is a module, too, and is taken for a part of the training: {option}"
    for entry in find_state_dicts(value):
        if entry.path and Candidate(entry.path, {}).is_usual:
            yield f"{entry.key} has weights without their module, and is not used"


def _entry(request: OpenRequest, members: Members) -> Entry:
    """Return the entry with the module, which admission has found."""
    entry = chosen_module(members.pickle("data.pkl").value, request.key)
    assert entry is not None
    return entry


def _needs_trust(
    request: OpenRequest, members: Members, entry: Entry, granted: list[Named]
) -> bool:
    """Return whether the module is more than torch.nn's own classes, and is trusted to be.

    Raises:
        CouldNotAttempt: if an attribute would hide a method, and the file is not trusted.
    """
    overrides = _overrides(request, entry, granted)
    if not request.trusted:
        if overrides:
            raise CouldNotAttempt(of_overrides(request.path, overrides))
        return False
    checkpoint = scan_checkpoint(members.pickle("data.pkl"), selector(request))
    refusal = of_checkpoint(request.path, checkpoint)
    has_unknown_layers = not _known_layers().issuperset(_layer_names(entry))
    return refusal is not None or bool(overrides) or has_unknown_layers


def _layer_names(entry: Entry) -> set[str]:
    """Return the names in torch.nn.modules that a module's pickle imports."""
    return {str(name) for name in reachable(entry.node).imports if is_layer(name)}


def _known_layers() -> set[str]:
    """Return the names of the classes that are loaded without trust."""
    classes = [member for member in _safe_globals() if isinstance(member, type)]
    return {f"{member.__module__}.{member.__qualname__}" for member in classes}


def _unpickle(request: OpenRequest, members: Members, load: Callable[[], Any]) -> Any:
    """Return the object that a function unpickles, of whatever class.

    Raises:
        CouldNotAttempt: if it needs a missing package, or does not load.
    """
    try:
        return load()
    except CouldNotAttempt:
        raise
    except ImportError as error:
        raise _module_missing(request, members, error) from error
    except AttributeError as error:
        raise _class_missing(request, members, error) from error
    except Exception as error:
        raise could_not_load(request, error) from error


def _module_missing(request: OpenRequest, members: Members, error: ImportError) -> CouldNotAttempt:
    """Return the error for a trusted pickle whose imports fail."""
    title = "the pickle imports a module that is not installed here"
    pickled = scan_checkpoint(members.pickle("data.pkl"), selector(request)).pickled
    remedies = import_remedies(error.name, request.reference)
    if pickled is not None:
        remedies = (*remedies, *for_class(request.path, pickled))
    help = (
        "install the module, or name the folder that has it: --import FOLDER",
        "or save the model with torch.jit.script or torch.export",
    )
    notes = (telling_line(error),)
    problem = Problem(Rule.PACKAGE_MISSING, title, request.path, notes, help, remedies=remedies)
    return CouldNotAttempt(problem)


def _class_missing(
    request: OpenRequest, members: Members, error: AttributeError
) -> CouldNotAttempt:
    """Return the error for a trusted pickle whose class its module does not have."""
    if not isinstance(error, NoSuchClass) and "Can't get attribute" not in str(error):
        return could_not_load(request, error)
    title = "the pickle needs a class that is not found here"
    checkpoint = scan_checkpoint(members.pickle("data.pkl"), selector(request))
    remedies = for_checkpoint(request.path, checkpoint)
    help = ("name the file that defines the class: --import FILE.py",)
    notes = (telling_line(error),)
    problem = Problem(Rule.PACKAGE_MISSING, title, request.path, notes, help, remedies=remedies)
    return CouldNotAttempt(problem)


def _load_trusted_part(request: OpenRequest, copy: Path, entry: Entry) -> Any:
    """Load all of a trusted file, whose code runs, and return the entry."""
    return _descend(load_trusted(request, copy, request.device), entry)


def _load_part(request: OpenRequest, members: Members, entry: Entry, granted: list[Named]) -> Any:
    """Load the entry of a file and nothing else, with the classes that need no trust."""
    with write_checkpoint(members, entry.node) as file:
        return _load_layers(file, request.device, granted)


def _load_layers(file: IO[bytes], device: str, granted: list[Named]) -> Any:
    """Load a pickle with torch.nn's own classes, and with those that are granted by name."""
    names = [*_safe_globals(), *_functions_of_torch(), *_weight_hooks(), *granted]
    with torch.serialization.safe_globals(names):
        return torch.load(file, map_location=device, weights_only=True)


def _descend(value: Any, entry: Entry) -> Any:
    """Return the part of an unpickled object that an entry names."""
    for key in entry.path:
        value = entry_of(value, key)
    for name in entry.unwrapped:
        value = getattr(value, name)
    return value


def _safe_globals() -> list[Any]:
    """Return torch.nn's module classes, and the functions that its Transformer may keep."""
    inner = nn.modules.linear.NonDynamicallyQuantizableLinear
    functions = [getattr(nn.functional, name) for name in FUNCTIONAL]
    functions += [getattr(torch._C._nn, name) for name in NATIVE]
    return [*_layer_classes(), inner, *functions, torch.relu, set]


def _functions_of_torch() -> Iterator[Named]:
    """Yield torch's activation functions with each name that pickles have for them."""
    for function in OF_TORCH:
        for name in names_of_torch(function):
            yield getattr(torch, function), name


def _weight_hooks() -> Iterator[Named]:
    """Yield the classes of torch's own hooks that compute a weight, with their names."""
    for name in WEIGHT_HOOKS:
        module, _, kind = name.rpartition(".")
        yield getattr(import_module(module), kind), name


def _layer_classes() -> list[type[nn.Module]]:
    """Return the module classes that torch.nn.modules exports, in its order."""
    classes = list[type[nn.Module]]()
    for name in dict.fromkeys(torch.nn.modules.__all__):
        member = getattr(torch.nn.modules, name)
        if isinstance(member, type) and issubclass(member, nn.Module):
            classes.append(member)
    return classes


def _refuse_malformed(request: OpenRequest, module: nn.Module) -> None:
    """Refuse modules with malformed internals, on which torch would fail late and unclearly.

    Raises:
        CouldNotAttempt: if an attribute that every module has is of another type.
    """
    defaults = nn.Module().__dict__
    todo = [("", module)]
    visited = set[int]()
    while todo:
        path, inner = todo.pop()
        visited.add(id(inner))
        for name, default in defaults.items():
            value = inner.__dict__.get(name)
            if not _has_type_of(name, value, default):
                place = path or "the module"
                note = f"{place}: {name} is a {type(value).__name__}"
                raise _malformed(request, note)
        for name, child in inner.__dict__["_modules"].items():
            if child is not None and id(child) not in visited:
                child_path = f"{path}.{name}".strip(".")
                todo.append((child_path, child))


def _malformed(request: OpenRequest, note: str) -> CouldNotAttempt:
    """Return the error whose note names the module and the attribute at fault."""
    title = "the pickled module is inconsistent"
    problem = Problem(Rule.COULD_NOT_LOAD, title, request.reference.name, (note,))
    return CouldNotAttempt(problem)


_ITEM_TYPES: Mapping[str, Any] = {
    "_parameters": torch.Tensor,
    "_buffers": torch.Tensor,
    "_modules": nn.Module,
}


def _has_type_of(name: str, value: Any, default: Any) -> bool:
    """Whether an attribute has the type that it has in a new module: a dict, a set, or a flag."""
    if isinstance(default, set):
        return isinstance(value, set)
    if not isinstance(default, dict):
        return isinstance(value, bool | type(None))
    if not isinstance(value, dict):
        return False
    item_type = _ITEM_TYPES.get(name)
    if item_type is None:
        return True
    for key, item in value.items():
        if not isinstance(key, str):
            return False
        if item is not None and not isinstance(item, item_type):
            return False
    return True


def _overrides(request: OpenRequest, entry: Entry, granted: list[Named]) -> tuple[str, ...]:
    """Return the attributes in a module's pickle that would hide one of their class.

    The classes of torch.nn have no attribute of their own that their objects also have. Those of
    other libraries may have defaults.
    """
    classes = dict[str, type]()
    for safe in _safe_globals():
        if isinstance(safe, type):
            classes[safe.__name__] = safe
    classes.update((name, kind) for kind, name in granted)
    overrides = list[str]()
    for name, state in layers(reachable(entry.node)):
        kind = classes.get(str(name), classes.get(name.name))
        for key, value in state.items:
            if is_text_in_place_of_a_method(key, value, request.libraries):
                continue
            if _hides(kind, name_of(key)):
                overrides.append(f"{name}: {key} is overridden")
    return tuple(overrides)


def _hides(kind: type | None, key: str) -> bool:
    """Return whether an attribute of an object would hide that of its class."""
    if kind is None or not hasattr(kind, key):
        return False
    return kind.__module__.startswith("torch.") or callable(getattr(kind, key))


def _slots(module: nn.Module, records: Mapping[int, str]) -> Iterator[TensorSlot]:
    """Yield where the module holds tensors without memory, and their records by their start.

    PyTorch notes the start of its record on a storage that it leaves on meta. A submodule that is
    used twice has its slots under both paths: TorchScript makes two submodules of it.
    """
    for path, inner in module.named_modules(remove_duplicate=False):
        held = {**inner.__dict__, **inner._buffers, **inner._parameters}
        for attribute, tensor in held.items():
            if not isinstance(tensor, torch.Tensor) or not tensor.is_meta:
                continue
            is_parameter = attribute in inner._parameters
            expected: type[torch.Tensor] = torch.Tensor
            if is_parameter:
                expected = nn.Parameter
            if type(tensor) is not expected:
                raise TypeError("a tensor of another class")
            start = tensor.untyped_storage()._checkpoint_offset
            record = records[start]
            yield TensorSlot(inner, path, attribute, record, tensor, is_parameter)


def _has_tensors_without_memory(module: nn.Module) -> bool:
    """Whether a tensor is left on meta because it is in a container, such as a list."""
    for inner in module.modules():
        for tensor in _tensors(inner.__dict__, 0):
            if tensor.is_meta:
                return True
    return False


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    """Yield the tensors inside nested containers; `depth` counts the containers around `value`."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    if depth >= MAX_CONTAINER_DEPTH or not isinstance(value, dict | list | tuple | set):
        return
    items: Iterable[Any] = value
    if isinstance(value, dict):
        items = value.values()
    for item in items:
        yield from _tensors(item, depth + 1)
