"""torch.export archives. They are programs: what one holds is judged before it is loaded."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
import torch.export
from torch.export.passes import move_to_device_pass

from composecli.errors import CouldNotAttempt, Problem
from composecli.files.exported import foreign_types
from composecli.files.zip import Archive
from composecli.protocol import ArgumentFact, OpenRequest, Training
from composecli.worker.load.admit import admitted_whole
from composecli.worker.model import Model, could_not_load, last_line
from composecli.worker.values import identity_of


def load_exported(request: OpenRequest) -> Model:
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
    notes = () if request.training is Training.SAVED else ("an exported program stays in the mode it was exported in",)
    return Model(module, request, _arguments(program), {}, notes)


def _foreign(copy: Path) -> tuple[str, ...]:
    with Archive(copy) as archive:
        return foreign_types(archive)


def _libraries(foreign: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in foreign))


def _needs_libraries(request: OpenRequest, foreign: tuple[str, ...]) -> CouldNotAttempt:
    libraries = _libraries(foreign)
    return CouldNotAttempt(
        Problem(
            "CC924", f"the archive takes or returns objects of {libraries}, which is not imported",
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
            "CC924", title, request.reference.name, (last_line(error),), ("install it beside composecli",)
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
