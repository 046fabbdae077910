"""torch.export archives. They are programs: what one holds is judged before it is loaded.

Most run op by op as their JSON says, without their tensors and without torch.export. It loads those that say more: an
op of higher order, a type of another library.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.pt2 import DTYPE_CODES, foreign_types
from composecli.runtime.loading.admission import admitted_whole
from composecli.runtime.loading.lazy import load_lazily
from composecli.runtime.model import Model, could_not_load, last_line
from composecli.runtime.pt2.guards import UnknownGuard
from composecli.runtime.pt2.program import Program, Unsupported
from composecli.runtime.tensors import identity_of
from composecli.runtime.weights import lazy_weights as held
from composecli.runtime.weights.lazy_weights import Weights
from composecli.workers.protocol import OpenRequest, Training


def load_exported(request: OpenRequest) -> Model:
    return load_lazily(request, _without_tensors, load_whole)


def _without_tensors(request: OpenRequest, archive: Archive) -> Model | str:
    """The program, or why it cannot be had so."""
    programs = [name for name in archive.names if re.fullmatch(r"models/[\w.-]+\.json", name)]
    if len(programs) != 1 or foreign_types(archive):
        return "it takes or returns objects of a library"
    try:
        program = Program(archive.json(programs[0]), request.device)
        places = tuple(_places(archive, program))
    except (Unsupported, UnknownGuard) as error:
        return f"it holds {error}"
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        return f"it is not read here ({type(error).__name__})"
    weights = None
    if request.device != "meta":
        weights = Weights(archive, places)
        weights.leave_out()
    names = tuple(ArgumentFact(name, "", required=True) for name in program.argument_names)
    return Model(program, request, names, {}, _mode_notes(request), weights)


def _places(archive: Archive, program: Program) -> Iterator[held.TensorSlot]:
    """The program's tensors put into it without memory, and where each lies in the file. Names that share a record as
    a whole are one parameter, as they were in the module that was exported."""
    described = _described(archive)
    made = dict[tuple[Any, ...], torch.Tensor]()
    for place in program.places:
        name = f"{place.module}.{place.attribute}".lstrip(".")
        record, meta = described[name]
        owner = _owner(program, place.module)
        geometry = tuple(_numbers(meta, key) for key in ("sizes", "strides"))
        offset, dtype = meta["storage_offset"]["as_int"], getattr(torch, DTYPE_CODES[meta["dtype"]])
        key = (record, *geometry, offset, dtype, place.parameter)
        if key not in made:
            storage = torch.UntypedStorage(archive.size(record), device="meta")
            tensor = torch.empty(0, dtype=dtype, device="meta").set_(storage, offset, *geometry)
            made[key] = (
                nn.Parameter(tensor, requires_grad=meta["requires_grad"])
                if place.parameter
                else tensor
            )
        if place.parameter:
            owner.register_parameter(place.attribute, made[key])
        else:
            owner.register_buffer(place.attribute, made[key])
        yield held.TensorSlot(
            owner, place.module, place.attribute, record, made[key], place.parameter
        )


def _described(archive: Archive) -> Mapping[str, tuple[str, Any]]:
    """Each tensor's record, and its sizes, strides and dtype."""
    found = dict[str, tuple[str, Any]]()
    for folder in ("weights", "constants"):
        for name in archive.names:
            if re.fullmatch(rf"data/{folder}/[\w.-]+_config\.json", name):
                for tensor, payload in archive.json(name)["config"].items():
                    found[tensor] = (
                        f"data/{folder}/{payload['path_name']}",
                        payload["tensor_meta"],
                    )
    return found


def _numbers(meta: Any, key: str) -> tuple[int, ...]:
    return tuple(size["as_int"] for size in meta[key])


def _owner(program: Program, path: str) -> nn.Module:
    """The submodule with this name, made where it is not there: it holds tensors and does nothing."""
    module: nn.Module = program
    for step in path.split(".") if path else ():
        inner = module._modules.get(step)
        if inner is None:
            inner = nn.Module()
            module.add_module(step, inner)
        module = inner
    return module


def _mode_notes(request: OpenRequest) -> tuple[str, ...]:
    return (
        ()
        if request.training is Training.SAVED
        else ("an exported program stays in the mode it was exported in",)
    )


def load_whole(request: OpenRequest) -> Model:
    import torch.export
    from torch.export.passes import move_to_device_pass

    with admitted_whole(request) as copy:
        if request.trusted:
            _import_libraries(request, copy)
        try:
            with copy.open("rb") as file:
                program = torch.export.load(file)
            if request.device != "cpu":
                program = move_to_device_pass(program, request.device)
            module = _tied(program.module())
        except Exception as error:
            foreign = () if request.trusted else _foreign(copy)
            if foreign:
                raise _needs_libraries(request, foreign) from error
            raise could_not_load(request, error) from error
    return Model(module, request, _arguments(program), {}, _mode_notes(request))


def _foreign(copy: Path) -> tuple[str, ...]:
    with Archive(copy) as archive:
        return foreign_types(archive)


def _libraries(foreign: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in foreign))


def _needs_libraries(request: OpenRequest, foreign: tuple[str, ...]) -> CouldNotAttempt:
    libraries = _libraries(foreign)
    return CouldNotAttempt(
        Problem(
            Rule.PACKAGE_MISSING, f"the archive takes or returns objects of {libraries}, which is not imported",
            request.reference.name, tuple(f"it names {name}" for name in foreign[:4]),
            (f"--trust {request.reference.path} imports {libraries}, if you know where the file comes from",
             "or export a module that returns plain tensors, tuples or dicts"),
        )
    )  # fmt: skip


def _import_libraries(request: OpenRequest, copy: Path) -> None:
    """Import the modules whose classes the archive names, which makes them known to torch's pytree."""
    foreign = _foreign(copy)
    try:
        for name in foreign:
            importlib.import_module(name.rpartition(".")[0])
    except Exception as error:
        title = f"the archive needs {_libraries(foreign)}, which cannot be imported here"
        problem = Problem(
            Rule.PACKAGE_MISSING,
            title,
            request.reference.name,
            (last_line(error),),
            ("install it beside composecli",),
        )
        raise CouldNotAttempt(problem) from error


def _tied(module: Any) -> Any:
    """The module with parameters that share their memory made one again: loading makes an object of each name."""
    first = dict[tuple[Any, ...], Any]()
    for name, parameter in list(module.named_parameters(remove_duplicate=False)):
        key = identity_of(parameter)
        owner, _, own = name.rpartition(".")
        if parameter.numel() and first.setdefault(key, parameter) is not parameter:
            setattr(module.get_submodule(owner), own, first[key])
    return module


def _arguments(program: Any) -> tuple[ArgumentFact, ...]:
    signature = program.module_call_graph[0].signature
    positional, named = signature.in_spec.children()
    names = list(signature.forward_arg_names or [])
    count = len(positional.children())
    names = names[:count] + [f"input {number}" for number in range(len(names), count)]
    return tuple(ArgumentFact(name, "", required=True) for name in (*names, *named.context))
