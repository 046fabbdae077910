"""Confinement: which files, how much memory and how much time the models of a command may use."""

from __future__ import annotations

import os

from composecli.commands.requests import Options
from composecli.commands.resolve import Target, paths_of
from composecli.core.input_spec import DeclaredSample
from composecli.workers.isolation import require_isolation
from composecli.workers.protocol import Isolation, Sandbox, SandboxRequest, Worker


def confine(
    worker: Worker, options: Options, targets: tuple[Target, ...], writable: tuple[str, ...] = ()
) -> Sandbox | None:
    """Have the worker give up everything that these models do not need.

    Return the measures that are expected to apply; None if the user switched isolation off.

    Raises:
        CouldNotAttempt: if a measure is not available and isolation is required, or the system has
            it and it could not be applied.
    """
    if options.limits.isolation is Isolation.NONE:
        return None
    request = _sandbox_request(options, targets, writable)
    sandbox = worker.ask(request)
    # A child has done this, too, each time that it was started; other workers have not.
    require_isolation(sandbox, required=request.required)
    return sandbox


def _sandbox_request(
    options: Options, targets: tuple[Target, ...], writable: tuple[str, ...]
) -> SandboxRequest:
    """Return the files and limits that the worker keeps; memory is in bytes."""
    readable = [os.path.realpath(path) for path in paths_of(targets)]
    for declared in options.inputs:
        if isinstance(declared, DeclaredSample):
            sample_path = os.path.realpath(declared.path)
            readable.append(sample_path)
    # A trusted file, and a factory, may open any file: only the others are confined to their own.
    may_open_files = any(_may_open_files(target) for target in targets)
    memory = options.limits.memory or _default_memory()
    uses_cuda = options.real_device.startswith("cuda")
    if uses_cuda:
        # The driver maps more address space than any such limit.
        memory = None
    return SandboxRequest(
        tuple(readable),
        writable,
        memory,
        options.limits.seconds,
        files=not may_open_files,
        imports=options.imports,
        libraries=options.libraries,
        uses_cuda=uses_cuda,
        required=options.limits.isolation is Isolation.REQUIRED,
    )


def _may_open_files(target: Target) -> bool:
    """Return whether the code of a model may open files besides its own."""
    return target.trust is not None or target.kind.traits.runs_user_code


def _default_memory() -> int | None:
    """Return four fifths of the memory of this machine, in bytes; None if that is not known."""
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
        page_bytes = os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    return pages * page_bytes * 4 // 5
