"""torch.export archives. They are programs, so their graph is checked before it is loaded.

Most of them run op by op from their JSON, without their tensors and without torch.export. It loads
the programs that need more: an op of higher order, or a type of another library.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.pt2 import foreign_types
from composecli.files.pt2_layout import (
    Geometry,
    TensorMeta,
    dtype_of,
    geometry_of,
    index_entries,
    program_members,
)
from composecli.files.safety.remedies import trust
from composecli.runtime.error_text import telling_line
from composecli.runtime.loading.exported_scan import numbers_as_enums
from composecli.runtime.loading.extensions import (
    NotRegistered,
    not_registered,
    refuse_unregistered_targets,
)
from composecli.runtime.loading.lazy import ArchiveLoader, Attempt, NotLazy
from composecli.runtime.model import Model, could_not_load
from composecli.runtime.pt2.guards import UnknownGuard
from composecli.runtime.pt2.nodes import Unsupported
from composecli.runtime.pt2.program import Program
from composecli.runtime.pt2.signature import LiftedTensor
from composecli.runtime.tensors import identity_of
from composecli.runtime.weights.lazy_weights import ArchiveWeights, TensorSlot
from composecli.workers.protocol import OpenRequest, Training

MAX_TYPES_SHOWN = 4


def _open_lazily(request: OpenRequest, archive: Archive) -> Attempt:
    """Return the only program of an archive, run from its JSON, with its tensors still unread."""
    _refuse_unregistered(request, archive)
    programs = program_members(archive)
    if len(programs) != 1 or foreign_types(archive):
        return NotLazy("it takes or returns objects of a library")
    try:
        program = Program(archive.json(programs[0]), request.device)
        slots = tuple(_attach_tensors(archive, program))
    except (Unsupported, UnknownGuard) as error:
        return NotLazy(f"it holds {error}")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        return NotLazy(f"this reader does not support it ({type(error).__name__})")
    weights = None
    if request.device != "meta":
        weights = ArchiveWeights(archive, slots)
        weights.fill_with_zeros()
    arguments = _arguments(program.argument_names)
    return Model(program, request, arguments, {}, _mode_notes(request), weights)


def _read_whole(request: OpenRequest, copy: Path) -> Model:
    """Load a program with torch.export, which takes long to import."""
    import torch.export
    from torch.export.passes import move_to_device_pass

    with Archive(copy) as archive:
        _refuse_unregistered(request, archive)
    if request.trusted:
        _import_libraries(request, copy)
    try:
        with copy.open("rb") as file:
            program = torch.export.load(file)
        if request.device != "cpu":
            program = move_to_device_pass(program, request.device)
        module = _tie_parameters(program.module())
    except Exception as error:
        foreign: tuple[str, ...] = ()
        if not request.trusted:
            foreign = _foreign_types(copy)
        if foreign:
            raise _needs_libraries(request, foreign) from error
        raise could_not_load(request, error) from error
    arguments = _arguments(_argument_names(program))
    return Model(module, request, arguments, {}, _mode_notes(request))


LOADER = ArchiveLoader(numbers_as_enums, _open_lazily, _read_whole)


def _refuse_unregistered(request: OpenRequest, archive: Archive) -> None:
    """Refuse an archive with ops that are not loaded.

    Raises:
        CouldNotAttempt: if there are any; it names the library to import.
    """
    try:
        refuse_unregistered_targets(archive)
    except NotRegistered as error:
        raise not_registered(request, error) from error


def _arguments(names: tuple[str, ...]) -> tuple[ArgumentFact, ...]:
    """Return the arguments with these names: all are required, none has a known type."""
    return tuple(ArgumentFact(name, "", required=True) for name in names)


def _argument_names(program: Any) -> tuple[str, ...]:
    """Return the argument names of an ExportedProgram, the positional ones first."""
    signature = program.module_call_graph[0].signature
    positional, named = signature.in_spec.children()
    count = len(positional.children())
    names = list(signature.forward_arg_names or [])[:count]
    unnamed = [f"input {number}" for number in range(len(names), count)]
    return (*names, *unnamed, *named.context)


def _mode_notes(request: OpenRequest) -> tuple[str, ...]:
    """Return a note if the request asks for a mode, which an exported program cannot change."""
    if request.training is Training.SAVED:
        return ()
    return ("an exported program stays in the mode it was exported in",)


class _Layout(NamedTuple):
    """The position of a tensor in its record. Parameters with equal layouts are one parameter."""

    record: str
    geometry: Geometry
    dtype: torch.dtype
    parameter: bool


def _attach_tensors(archive: Archive, program: Program) -> Iterator[TensorSlot]:
    """Register the program's tensors, without memory, and yield where each is stored in the file.

    Names with the same layout in the same record are one parameter, as they were in the exported
    module.
    """
    stored = {entry.name: entry for entry in index_entries(archive) if entry.is_plain}
    made = dict[_Layout, torch.Tensor]()
    for lifted in program.lifted:
        name = f"{lifted.module}.{lifted.attribute}".lstrip(".")
        entry = stored[name]
        meta = entry.payload["tensor_meta"]
        if meta is None:
            raise TypeError("a stored object that is not a tensor")
        dtype = getattr(torch, dtype_of(meta).name)
        layout = _Layout(entry.record, geometry_of(meta), dtype, lifted.parameter)
        if layout not in made:
            nbytes = archive.size(entry.record)
            made[layout] = _meta_tensor(layout, meta, nbytes)
        yield _register(program, lifted, entry.record, made[layout])


def _meta_tensor(layout: _Layout, meta: TensorMeta, nbytes: int) -> torch.Tensor:
    """Return a tensor without memory, on a storage as large as its record of `nbytes` bytes."""
    sizes, strides, offset = layout.geometry
    storage = torch.UntypedStorage(nbytes, device="meta")
    empty = torch.empty(0, dtype=layout.dtype, device="meta")
    tensor = empty.set_(storage, offset, sizes, strides)
    if layout.parameter:
        return nn.Parameter(tensor, requires_grad=meta["requires_grad"])
    return tensor


def _register(
    program: Program, lifted: LiftedTensor, record: str, tensor: torch.Tensor
) -> TensorSlot:
    """Add a tensor to the program as its parameter or buffer; return where it is now held."""
    owner = _submodule(program, lifted.module)
    if lifted.parameter:
        owner.register_parameter(lifted.attribute, tensor)
    else:
        owner.register_buffer(lifted.attribute, tensor)
    return TensorSlot(
        owner, lifted.module, lifted.attribute, record, tensor, parameter=lifted.parameter
    )


def _submodule(program: Program, path: str) -> nn.Module:
    """Return the submodule at this path. A missing one is added: it only holds tensors."""
    module: nn.Module = program
    if not path:
        return module
    for name in path.split("."):
        inner = module._modules.get(name)
        if inner is None:
            inner = nn.Module()
            module.add_module(name, inner)
        module = inner
    return module


def _foreign_types(copy: Path) -> tuple[str, ...]:
    """Return the full names of the classes in an archive that torch itself does not have."""
    with Archive(copy) as archive:
        return foreign_types(archive)


def _libraries(foreign: tuple[str, ...]) -> str:
    """Return the top-level packages of these classes as one text, each of them once."""
    packages = [name.partition(".")[0] for name in foreign]
    return ", ".join(dict.fromkeys(packages))


def _needs_libraries(request: OpenRequest, foreign: tuple[str, ...]) -> CouldNotAttempt:
    """Return the error for a file that is not trusted to import the packages of its classes."""
    libraries = _libraries(foreign)
    title = f"the archive uses objects of {libraries}, which is not imported"
    notes = tuple(f"it names {name}" for name in foreign[:MAX_TYPES_SHOWN])
    help = ("export a module that returns plain tensors, tuples or dicts",)
    words = list[str]()
    for name in foreign:
        words += ["--import", name.rpartition(".")[0]]
    importing = Remedy(tuple(words), effect=f"imports {libraries}, and runs no code of the file")
    remedies = (importing, trust(request.path))
    problem = Problem(
        Rule.PACKAGE_MISSING, title, request.reference.name, notes, help, remedies=remedies
    )
    return CouldNotAttempt(problem)


def _import_libraries(request: OpenRequest, copy: Path) -> None:
    """Import the modules whose classes the archive names, which registers them with torch's pytree.

    Raises:
        CouldNotAttempt: if one of them cannot be imported.
    """
    foreign = _foreign_types(copy)
    try:
        for name in foreign:
            module_name, _, _ = name.rpartition(".")
            importlib.import_module(module_name)
    except Exception as error:
        title = f"the archive needs {_libraries(foreign)}, which cannot be imported here"
        notes = (telling_line(error),)
        help = ("install it in the same environment as composecli",)
        problem = Problem(Rule.PACKAGE_MISSING, title, request.reference.name, notes, help)
        raise CouldNotAttempt(problem) from error


def _tie_parameters(module: Any) -> Any:
    """Make parameters that share their memory one object again: loading makes one for each name."""
    first = dict[tuple[Any, ...], Any]()
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        if not parameter.numel():
            continue
        shared = first.setdefault(identity_of(parameter), parameter)
        if shared is not parameter:
            owner, _, attribute = name.rpartition(".")
            holder = module.get_submodule(owner)
            setattr(holder, attribute, shared)
    return module
