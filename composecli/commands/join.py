"""Joining: a judged blueprint written to a file, verified before it takes its name, with where it comes from."""

from __future__ import annotations

import errno
import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from composecli.commands.check import _check_report, _identify_all, _judge, _silent
from composecli.commands.composition import Composition
from composecli.commands.opened_model import OpenedModel
from composecli.commands.requests import JoinRequest
from composecli.commands.results import JoinReport, Written
from composecli.commands.session import Progress, Session
from composecli.core.blueprint import Blueprint, Parallel, bridges
from composecli.core.bridge import Linear, as_data, describe
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.findings import Finding
from composecli.core.observations import Accepted
from composecli.core.pytree import Call
from composecli.core.rules import Rule
from composecli.files.archive import NotAnArchive, damaged_records, lacks_checksums
from composecli.files.safety.refusals import damaged, shown
from composecli.files.torchscript import PROVENANCE
from composecli.files.writing.digests import Digests
from composecli.files.writing.splice import BackgroundSplice, DamagedRecord, Plan, Source, Spliced
from composecli.files.writing.staged_output import OutputFile, StagedFile, could_not_write, full
from composecli.inference.free_dims import larger_batch
from composecli.inference.result import Found
from composecli.workers.protocol import (
    BuildRequest,
    Built,
    ReferenceRequest,
    Verified,
    VerifyRequest,
    Worker,
)

PROVENANCE_VERSION = 1
_NO_SPACE = "no space is left where the output goes"


def _refuse_damaged(paths: Iterable[str]) -> None:
    """Hold the weights that went through memory against their checksums, which PyTorch never does.

    Raises:
        CouldNotAttempt: one is not what was written.
    """
    for path in dict.fromkeys(paths):
        damage = damaged_records(path)
        if damage:
            raise CouldNotAttempt(damaged(path, *shown(damage)))


def write(
    request: JoinRequest,
    session: Session,
    parts: tuple[OpenedModel, ...],
    composition: Composition,
    work: Work,
) -> Written:
    """Build into the stage, verify what a fresh load of it does, and only then give it its name."""
    blueprint, call = composition.blueprint, composition.call
    assert blueprint is not None
    assert call is not None
    calls = _verification_calls(session, composition, blueprint, call)
    output, path = work.stage.output, work.stage.path
    session.tell("building the join")
    built = _build(session.worker, BuildRequest(blueprint, call, str(path), request.seed), output)
    session.tell("writing and verifying the join")

    def provenance() -> bytes:
        inputs = _inputs(parts, composition, work.digests)
        return _provenance(request, session, composition, blueprint, inputs).encode()

    expected = ReferenceRequest(blueprint, calls, request.seed)
    spliced, verified = _write_and_verify(
        session.worker, expected, _plan(built, parts, work, provenance), work
    )
    work.stage.commit()
    return Written(
        output.path,
        spliced.size,
        spliced.sha256,
        bridges(blueprint),
        blueprint.merge if isinstance(blueprint, Parallel) else None,
        verified.checks,
        (*_join_notes(blueprint, built.notes, verified, calls), *_checksum_notes(parts)),
    )


def _write_and_verify(
    worker: Worker, expected: ReferenceRequest, plan: Plan, work: Work
) -> tuple[Spliced, Verified]:
    """While records are copied, the parts are run by hand; while the file is read back and flushed, it is loaded afresh
    and held against them."""
    path = work.stage.path
    whole = path.with_name(f"{path.name}.whole")
    # The splice waits for the digests: where it is left, they have to end first.
    with _told(work), BackgroundSplice(plan, whole) as splicing, closing(work.digests):
        worker.run_reference(expected)
        splicing.written()
        # A file that takes the place of another is flushed before anything else goes on.
        path.unlink()
        whole.rename(path)
        with work.stage.flushing():
            verified = worker.verify(VerifyRequest(str(path), expected))
            spliced = splicing.result()
        _refuse_failed(verified, work.stage.output)
    _refuse_changed(work)
    return spliced, verified


@dataclass(frozen=True, slots=True)
class Work:
    """Where the output is written, and the digests of the inputs, that are computed meanwhile."""

    stage: StagedFile
    digests: Digests


def _plan(
    built: Built, parts: tuple[OpenedModel, ...], work: Work, provenance: Callable[[], bytes]
) -> Plan:
    """The file that was built with the records that it leaves out, in their places."""
    paths = {part.handle: part.target.path for part in parts}
    sources = {left.record: Source(paths[left.model], left.source) for left in built.left_out}
    _refuse_damaged(
        path for path in paths.values() if path not in {source.path for source in sources.values()}
    )
    return Plan(work.stage.path, sources, {f"extra/{PROVENANCE}": provenance})


@contextmanager
def _told(work: Work) -> Iterator[None]:
    """What goes wrong in writing, as a problem. Where an input is another by now, that is what went wrong."""
    try:
        yield
    except CouldNotAttempt:
        _refuse_changed(work)
        raise
    except (DamagedRecord, NotAnArchive, OSError) as error:
        _refuse_changed(work)
        raise _problem(error, work.stage.output.path) from error


def _refuse_changed(work: Work) -> None:
    for changed in work.digests.changed():
        raise CouldNotAttempt(
            Problem(Rule.FILE_CHANGED, "the file became another while it was read", changed)
        )


def _problem(error: DamagedRecord | NotAnArchive | OSError, output: str) -> CouldNotAttempt:
    match error:
        case DamagedRecord():
            return CouldNotAttempt(damaged(error.source.path, str(error)))
        case NotAnArchive():
            return CouldNotAttempt(
                Problem(
                    Rule.FILE_CHANGED,
                    "a file became another while it was read",
                    None,
                    (str(error),),
                )
            )
        case OSError(errno=errno.ENOSPC):
            return CouldNotAttempt(Problem(Rule.COULD_NOT_WRITE, _NO_SPACE, output))
        case OSError():
            return could_not_write(output, error)
        case _:
            assert_never(error)


def _build(worker: Worker, request: BuildRequest, output: OutputFile) -> Built:
    try:
        return worker.build(request)
    except CouldNotAttempt as failure:
        if not full(output):
            raise
        problem = Problem(Rule.COULD_NOT_WRITE, _NO_SPACE, output.path, failure.problem.notes)
        raise CouldNotAttempt(problem) from failure


def _verification_calls(
    session: Session, composition: Composition, blueprint: Blueprint, call: Call
) -> tuple[Call, Call]:
    """Two batch sizes where axis 0 is free for all parts, else the same sizes twice, with other values."""
    contracts = [found.contract for found in composition.contracts if isinstance(found, Found)]
    owner = next((contract for contract in contracts if contract.example == call), None)
    larger = larger_batch(owner, call) if owner is not None else None
    if larger is not None and isinstance(session.run(blueprint, larger), Accepted):
        return call, larger
    return call, call


def _refuse_failed(verified: Verified, output: OutputFile) -> None:
    failed = [check for check in verified.checks if not check.passed]
    if failed:
        notes = tuple(f"{check.name}: {check.detail}" for check in failed)
        raise CouldNotAttempt(
            Problem(
                Rule.VERIFICATION_FAILED,
                "the joined file does not do what its parts do, so it was not kept",
                output.path,
                notes,
            )
        )


def _join_notes(
    blueprint: Blueprint, built: tuple[str, ...], verified: Verified, calls: tuple[Call, Call]
) -> tuple[Finding, ...]:
    notes = [Finding(Rule.LOST_IN_TRACING, note) for note in built]
    layers = [step for bridge in bridges(blueprint) for step in bridge if isinstance(step, Linear)]
    notes += [
        Finding(
            Rule.BRIDGE_IS_UNTRAINED,
            f"{describe(layer)}: it has to be fitted before its outputs mean anything",
        )
        for layer in layers
    ]
    if verified.cut:
        shown = ", ".join(verified.cut[:3]) + (", …" if len(verified.cut) > 3 else "")
        title = (
            f"{len(verified.cut)} parameters get no gradient, in the parts run by hand too: {shown}"
        )
        notes.append(Finding(Rule.GRADIENT_IS_CUT, title))
    if calls[0] == calls[1]:
        notes.append(
            Finding(
                Rule.ONE_BATCH_SIZE_VERIFIED,
                "verified at one size with two seeds: axis 0 of the input is not free",
            )
        )
    return tuple(notes)


def _checksum_notes(parts: tuple[OpenedModel, ...]) -> Iterator[Finding]:
    for path in dict.fromkeys(part.target.path for part in parts):
        if lacks_checksums(path):
            yield Finding(
                Rule.NO_CHECKSUMS,
                f"{path} was saved without checksums: its weights were held against none",
            )


def _provenance(
    request: JoinRequest,
    session: Session,
    composition: Composition,
    blueprint: Blueprint,
    inputs: list[dict[str, object]],
) -> str:
    """Return the JSON that a joined file holds of where it comes from: `provenance` of `schema_v1.json`."""
    facts = {
        "version": PROVENANCE_VERSION,
        "mode": str(request.check.mode),
        "inputs": inputs,
        "example": str(composition.call),
        "bridges": [[as_data(step) for step in bridge] for bridge in bridges(blueprint)],
        "merge": {"merge": str(blueprint.merge), "dim": blueprint.dim}
        if isinstance(blueprint, Parallel)
        else None,
        "seed": request.seed,
        "device": session.real_device,
        "training": str(session.options.training),
        "composecli": _version("composecli"),
        "torch": _version("torch"),
    }
    return json.dumps(facts, indent=1)


def _inputs(
    parts: tuple[OpenedModel, ...], composition: Composition, digests: Digests
) -> list[dict[str, object]]:
    """What is told of each model that was joined."""
    contracts = [
        found.contract if isinstance(found, Found) else None for found in composition.contracts
    ]
    return [
        {
            "name": Path(part.target.path).name,
            "kind": str(part.target.kind),
            "sha256": digests.of(part.target.path),
            "contract": str(contract) if contract is not None else None,
            "training": part.facts.training,
        }
        for part, contract in zip(parts, contracts, strict=True)
    ]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def join(request: JoinRequest, worker: Worker, tell: Progress = _silent) -> JoinReport:
    """The check, and where it allows it the combined module, written and verified.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or the output cannot be written.
    """
    from composecli.files.writing.digests import Digests
    from composecli.files.writing.staged_output import resolve_output, staged

    asked = request.check
    targets = _identify_all(asked.models, asked.options)
    output = resolve_output(
        request.output, tuple(target.path for target in targets), force=request.force
    )
    session = Session(worker, asked.options, tell)
    with staged(output) as stage, Digests(target.path for target in targets) as digests:
        session.confine(targets, (str(stage.path.parent),))
        parts = tuple(session.open(target) for target in targets)
        composition = _judge(asked, session, parts)
        report = _check_report(asked, session, parts, composition)
        if composition.blueprint is None or composition.call is None:
            return JoinReport(report, None)
        written = write(request, session, parts, composition, Work(stage, digests))
    return JoinReport(report, written, composition.bridged)
