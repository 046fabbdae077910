"""Pickled modules: torch.nn's own classes load as they are, any other only from a trusted file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.modules
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.checkpoint import layers, scan_checkpoint
from composecli.files.safety.refusals import of_overrides
from composecli.files.safety.remedies import for_checkpoint, for_class
from composecli.files.skeleton import checkpoint_skeleton, has_foreign_byte_order, record_starts
from composecli.runtime.loading.admission import no_scan
from composecli.runtime.loading.lazy import ArchiveLoader, Attempt, NotAModel, NotLazy
from composecli.runtime.loading.missing_module import import_remedies
from composecli.runtime.loading.own_code import NoSuchClass, load_trusted
from composecli.runtime.model import Model, could_not_load, eager_arguments, last_line, set_training
from composecli.runtime.weights.lazy_weights import ArchiveWeights, TensorSlot
from composecli.workers.protocol import OpenRequest

# Containers that are searched for tensors, at most this deep.
MAX_CONTAINER_DEPTH = 4


def _open_lazily(request: OpenRequest, archive: Archive) -> Attempt:
    """Return the module of a pickle without its tensors, or the reason to read the whole file."""
    if not request.trusted:
        _refuse_overrides(request, archive)
    if has_foreign_byte_order(archive):
        return NotLazy("they are stored in an unusual way")
    skeleton = checkpoint_skeleton(archive)
    weights = None
    try:
        module = _unpickle(request, io.BytesIO(skeleton), "meta")
        if not isinstance(module, nn.Module):
            return NotAModel()
        _refuse_malformed(request, module)
        if request.device != "meta":
            starts = record_starts(skeleton)
            slots = tuple(_slots(module, starts))
            weights = ArchiveWeights(archive, slots)
            weights.fill_with_zeros()
            if _has_tensors_without_memory(module):
                return NotLazy("some are in data structures of the model's own")
    except Exception as error:
        return NotLazy(f"without them it does not load ({last_line(error)[:80]})")
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {}, weights=weights)


def _read_whole(request: OpenRequest, copy: Path) -> Model:
    """Return the module of a pickle with its tensors; other objects are refused as no model."""
    module = _unpickle_whole(request, copy)
    if not isinstance(module, nn.Module):
        title = f"the file holds a {type(module).__name__}, not a module"
        problem = Problem(Rule.NOT_A_MODEL, title, request.reference.name)
        raise CouldNotAttempt(problem)
    _refuse_malformed(request, module)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {})


LOADER = ArchiveLoader(no_scan, _open_lazily, _read_whole)


def _unpickle_whole(request: OpenRequest, copy: Path) -> Any:
    """Return the object of a pickle, of whatever class.

    Raises:
        CouldNotAttempt: if it overrides a method, needs a missing package, or does not load.
    """
    try:
        if not request.trusted:
            with Archive(copy) as archive:
                _refuse_overrides(request, archive)
        return _unpickle(request, copy, request.device)
    except CouldNotAttempt:
        raise
    except ImportError as error:
        raise _module_missing(request, copy, error) from error
    except AttributeError as error:
        raise _class_missing(request, copy, error) from error
    except Exception as error:
        raise could_not_load(request, error) from error


def _module_missing(request: OpenRequest, copy: Path, error: ImportError) -> CouldNotAttempt:
    """Return the error for a trusted pickle that imports what is not found."""
    title = "the pickle imports a module that is not installed here"
    remedies = (*import_remedies(error.name, request.reference), *_by_class(request, copy))
    help = (
        "install the module, or name the folder that has it: --import FOLDER",
        "or save the model with torch.jit.script or torch.export",
    )
    notes = (last_line(error),)
    problem = Problem(Rule.PACKAGE_MISSING, title, request.path, notes, help, remedies=remedies)
    return CouldNotAttempt(problem)


def _class_missing(request: OpenRequest, copy: Path, error: AttributeError) -> CouldNotAttempt:
    """Return the error for a trusted pickle whose class its module does not have."""
    if not isinstance(error, NoSuchClass) and "Can't get attribute" not in str(error):
        return could_not_load(request, error)
    title = "the pickle needs a class that is not found here"
    with Archive(copy) as archive:
        checkpoint = scan_checkpoint(archive.pickle("data.pkl"))
    remedies = for_checkpoint(request.path, checkpoint)
    help = ("name the file that defines the class: --import FILE.py",)
    notes = (last_line(error),)
    problem = Problem(Rule.PACKAGE_MISSING, title, request.path, notes, help, remedies=remedies)
    return CouldNotAttempt(problem)


def _by_class(request: OpenRequest, copy: Path) -> tuple[Remedy, ...]:
    """Return the remedies that build the module by its class, found in a file nearby."""
    with Archive(copy) as archive:
        pickled = scan_checkpoint(archive.pickle("data.pkl")).pickled
    if pickled is None:
        return ()
    return tuple(for_class(request.path, pickled))


def _unpickle(request: OpenRequest, file: Path | io.BytesIO, device: str) -> Any:
    """Load a pickle; unless it is trusted, with torch.nn's own classes only."""
    if request.trusted:
        return load_trusted(request, file, device)
    with torch.serialization.safe_globals(_safe_globals()):
        return torch.load(file, map_location=device, weights_only=True)


def _safe_globals() -> list[Any]:
    """Return torch.nn's module classes, and the functions that its Transformer refers to."""
    inner = nn.modules.linear.NonDynamicallyQuantizableLinear
    functions = (nn.functional.relu, nn.functional.gelu, torch.relu)
    return [*_layer_classes(), inner, *functions, set]


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


def _refuse_overrides(request: OpenRequest, archive: Archive) -> None:
    """Refuse attributes that would hide a method of their class.

    Raises:
        CouldNotAttempt: if an object of the pickle has one.
    """
    classes = dict[str, type]()
    for safe in _safe_globals():
        if isinstance(safe, type):
            classes[safe.__name__] = safe
    overrides = list[str]()
    for name, keys in layers(archive.pickle("data.pkl")):
        kind = classes.get(name.name)
        for key in keys:
            member = getattr(kind, key, None)
            if callable(member):
                overrides.append(f"{name}: {key} is overridden")
    if overrides:
        raise CouldNotAttempt(of_overrides(request.path, tuple(overrides)))


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
