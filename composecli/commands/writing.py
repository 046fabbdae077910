"""Writing: fill the staged output, verify it, and report every failure as a problem."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import assert_never

from composecli.commands.opened_model import OpenedModels
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.archive import damaged_records
from composecli.files.archive_checks import NotAnArchive
from composecli.files.safety.refusals import damaged, shown
from composecli.files.torchscript import PROVENANCE
from composecli.files.writing.digests import Digests
from composecli.files.writing.splice import BackgroundSplice, DamagedRecord, Plan, Source, Spliced
from composecli.files.writing.staged_output import OutputFile, StagedFile, could_not_write, full
from composecli.workers.protocol import (
    GRADIENTS,
    BuildRequest,
    Built,
    Check,
    ReferenceRequest,
    Verified,
    VerifyRequest,
    Worker,
)

_NO_SPACE = "no space is left on the output's disk"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The staged output, and the digests of the inputs, which are computed concurrently."""

    stage: StagedFile
    digests: Digests


def build(worker: Worker, request: BuildRequest, output: OutputFile) -> Built:
    """Have the worker build the joined module.

    Raises:
        CouldNotAttempt: if it cannot be built. PyTorch does not report a full disk as such.
    """
    try:
        return worker.ask(request)
    except CouldNotAttempt as failure:
        if not full(output):
            raise
        problem = Problem(Rule.COULD_NOT_WRITE, _NO_SPACE, output.path, failure.problem.notes)
        raise CouldNotAttempt(problem) from failure


def plan_splice(
    built: Built,
    parts: OpenedModels,
    workspace: Workspace,
    provenance: Callable[[], bytes],
) -> Plan:
    """Return the plan that completes the built file with the records that it leaves out.

    Raises:
        CouldNotAttempt: if an input does not match its own checksums. Records that are copied are
            checked during the copy; those that went through memory are checked here, because
            PyTorch does not do it.
    """
    paths = dict[int, str]()
    for part in parts:
        if part.target.path is not None:
            paths[part.handle] = part.target.path
    sources = {left.record: Source(paths[left.model], left.source) for left in built.left_out}
    copied = {source.path for source in sources.values()}
    _refuse_damaged(path for path in paths.values() if path not in copied)
    extra = {f"extra/{PROVENANCE}": provenance}
    return Plan(workspace.stage.path, sources, extra)


def _refuse_damaged(paths: Iterable[str]) -> None:
    """Refuse files with records that do not match their checksums."""
    for path in dict.fromkeys(paths):
        records = damaged_records(path)
        if records:
            problem = damaged(path, *shown(records))
            raise CouldNotAttempt(problem)


def write_and_verify(
    worker: Worker, reference: ReferenceRequest, plan: Plan, workspace: Workspace
) -> tuple[Spliced, Verified]:
    """Complete the staged file, load it again, and compare it with its parts.

    The parts run while records are copied. The file is loaded and compared while it is read back
    and flushed.

    Raises:
        CouldNotAttempt: if the file cannot be written, or if an input changed in the meantime.
    """
    path = workspace.stage.path
    complete = path.with_name(f"{path.name}.whole")
    # On failure the digests are closed first: the splice waits for them.
    with (
        _problems_of_writing(workspace),
        BackgroundSplice(plan, complete) as splice,
        closing(workspace.digests),
    ):
        worker.ask(reference)
        splice.written()
        # Unlink first: a file that is renamed over another one is flushed at that moment.
        path.unlink()
        complete.rename(path)
        with workspace.stage.flushing():
            verified = worker.ask(VerifyRequest(str(path), reference))
            spliced = splice.result()
    _refuse_changed(workspace)
    return spliced, verified


@contextmanager
def _problems_of_writing(workspace: Workspace) -> Iterator[None]:
    """Turn errors into problems. An input that changed meanwhile is the cause of any other one."""
    try:
        yield
    except CouldNotAttempt:
        _refuse_changed(workspace)
        raise
    except (DamagedRecord, NotAnArchive, OSError) as error:
        _refuse_changed(workspace)
        raise _problem(error, workspace.stage.output.path) from error


def _problem(error: DamagedRecord | NotAnArchive | OSError, output: str) -> CouldNotAttempt:
    """Return the problem that an error of the writing means to the user."""
    match error:
        case DamagedRecord():
            problem = damaged(error.source.path, str(error))
            return CouldNotAttempt(problem)
        case NotAnArchive():
            title = "a file changed while it was being read"
            problem = Problem(Rule.FILE_CHANGED, title, notes=(str(error),))
            return CouldNotAttempt(problem)
        case OSError(errno=errno.ENOSPC):
            problem = Problem(Rule.COULD_NOT_WRITE, _NO_SPACE, output)
            return CouldNotAttempt(problem)
        case OSError():
            return could_not_write(output, error)
        case _:
            assert_never(error)


def _refuse_changed(workspace: Workspace) -> None:
    """Refuse to go on if an input is no longer the file that was digested."""
    for path in workspace.digests.changed():
        title = "the file changed while it was being read"
        raise CouldNotAttempt(Problem(Rule.FILE_CHANGED, title, path))


def refuse_failed(verified: Verified, output: OutputFile, built: Built, *, strict: bool) -> None:
    """Refuse a joined file that does not behave like its parts.

    Its gradients may differ if a part has autograd functions: TorchScript has no backward of its
    own for them. A trace may refuse other sizes than those of the example, unless `strict`.

    Raises:
        CouldNotAttempt: if it does not.
    """
    failed = [check for check in verified.failed if not lacks_backward(check, built)]
    notes = [f"{check.name}: {check.detail}" for check in failed]
    if strict or not built.is_traced:
        notes += [f"forward at {refusal.call}: {refusal.message}" for refusal in verified.refusals]
    if notes:
        title = "the joined file differs from the separate models, so it was not kept"
        problem = Problem(Rule.VERIFICATION_FAILED, title, output.path, (*notes, *built.notes))
        raise CouldNotAttempt(problem)


def lacks_backward(check: Check, built: Built) -> bool:
    """Whether a check failed because the file lacks the backward of an autograd function."""
    return check.name == GRADIENTS and not check.passed and bool(built.functions)
