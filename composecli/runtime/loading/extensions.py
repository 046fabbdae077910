"""Extensions of torch: the ops and classes that an archive needs and no import has registered."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.archive import Archive
from composecli.files.safety.extension_ops import (
    classes_in_code,
    importing,
    libraries_of,
    ops_in_code,
    ops_in_programs,
)
from composecli.files.safety.refusals import shown
from composecli.workers.protocol import OpenRequest

_UNKNOWN_OP = re.compile(r"Unknown builtin op: (\w+::\w+)")


class NotRegistered(Exception):
    """An archive needs ops or classes that no module has registered here."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def refuse_unregistered_code(archive: Archive, error: RuntimeError | None = None) -> None:
    """Refuse a TorchScript archive whose code needs what is not registered.

    `error` is that of the compiler, which names an op that the text hides.

    Raises:
        NotRegistered: if there is such an op or class.
    """
    names = [op for op in ops_in_code(archive) if not _is_registered(op)]
    names += [name for name in classes_in_code(archive) if not _is_class(name)]
    hidden = _UNKNOWN_OP.search(str(error))
    if hidden is not None and not names:
        names = [hidden[1]]
    _refuse(names)


def refuse_unregistered_targets(archive: Archive) -> None:
    """Refuse a torch.export archive whose programs call ops that are not registered.

    Raises:
        NotRegistered: if there is such an op.
    """
    _refuse(op for op in ops_in_programs(archive) if not _is_registered(op))


def _refuse(names: Iterable[str]) -> None:
    """Raise the error for these names, if there are any."""
    missing = tuple(names)
    if missing:
        raise NotRegistered(missing)


def _is_registered(op: str) -> bool:
    """Return whether torch knows an op."""
    return bool(torch._C._jit_get_schemas_for_operator(op))


def _is_class(name: str) -> bool:
    """Return whether torch knows a class of a C++ extension."""
    namespace, _, class_name = name.partition(".")
    try:
        getattr(getattr(torch.classes, namespace), class_name)
    except RuntimeError:
        return False
    return True


def not_registered(request: OpenRequest, error: NotRegistered) -> CouldNotAttempt:
    """Return the error for a file that needs an extension; it names the library to import."""
    libraries = libraries_of(error.names, request.path)
    ops = [name for name in error.names if "::" in name]
    use = "has objects of a class"
    if ops:
        use = "calls an op"
    title = f"the {request.kind} {use} of an extension library that is not loaded"
    notes = list[str]()
    for name in error.names:
        notes.append(f"it needs {name}")
    to_allow = list[str]()
    if not request.trusted:
        to_allow = [op for op in ops if op not in request.allowed_ops]
    help = "install the library, or name the file that registers the op: --import FILE.py"
    problem = Problem(
        Rule.PACKAGE_MISSING,
        title,
        request.path,
        shown(tuple(notes)),
        (help,),
        remedies=(importing(libraries, to_allow),),
    )
    return CouldNotAttempt(problem)
