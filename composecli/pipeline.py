"""The commands as stories: one function each, from a request to a report."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path

from composecli.axes import larger_batch
from composecli.beside import judge_beside
from composecli.blueprint import Blueprint, Mode, Parallel, bridges
from composecli.bridge import Linear, describe
from composecli.chain import judge_chain
from composecli.codec import encode
from composecli.contract import Contract
from composecli.errors import CouldNotAttempt, Problem
from composecli.files.output import Output, allow, full, whole
from composecli.findings import Finding, Side
from composecli.infer import Found
from composecli.judgement import Judged, not_found_finding
from composecli.observations import Accepted
from composecli.protocol import BuildRequest, Built, DescribeRequest, Verified, VerifyRequest, Worker
from composecli.requests import CheckRequest, InspectRequest, JoinRequest, Options
from composecli.results import CheckReport, InspectReport, JoinReport, Written
from composecli.session import Part, Session, Tell, model_report
from composecli.targets import Target, identify
from composecli.trees import Call, leaves
from composecli.wiring import select

PROVENANCE_VERSION = 1


def _silent(_: str) -> None:
    return


def check(request: CheckRequest, worker: Worker, tell: Tell = _silent) -> CheckReport:
    """The verdict of every seam.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or is not trusted.
    """
    session = Session(worker, request.options, tell)
    parts = _open_all(request, session)
    return _check_report(request, session, parts, _judge(request, session, parts))


def join(request: JoinRequest, worker: Worker, tell: Tell = _silent) -> JoinReport:
    """The check, and where it allows it the combined module, written and verified.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or the output cannot be written.
    """
    asked = request.check
    targets = _identify_all(asked.models, asked.options)
    output = allow(request.output, tuple(target.path for target in targets), force=request.force)
    session = Session(worker, asked.options, tell)
    parts = tuple(session.open(target) for target in targets)
    judged = _judge(asked, session, parts)
    report = _check_report(asked, session, parts, judged)
    if judged.blueprint is None or judged.call is None:
        return JoinReport(report, None)
    written = _write(request, session, parts, judged, output)
    return JoinReport(report, written, judged.bridged)


def inspect(request: InspectRequest, worker: Worker, tell: Tell = _silent) -> InspectReport:
    """The contract of one model with its evidence, its layers, and what is worth knowing of it.

    Raises:
        CouldNotAttempt: the model cannot be read or run, or is not trusted.
    """
    session = Session(worker, request.options, tell)
    part = session.open(identify(request.model, trusted=request.options.trusted))
    found = session.infer(part, stated=session.stated(part.facts))
    report = model_report(part, found)
    contract = found.contract if isinstance(found, Found) else None
    if contract is not None:
        report = replace(report, contract=_selected(contract, request.options, part))
    example = contract.example if contract is not None else None
    layers = worker.describe(DescribeRequest(part.real, example)).rows
    finding = (
        None
        if isinstance(found, Found)
        else not_found_finding(part.name, part.facts, found, stated=bool(request.options.inputs))
    )
    file = part.target.file
    return InspectReport(
        report,
        part.facts,
        layers,
        finding,
        _portability(part),
        file.provenance if file is not None else None,
        Path(part.target.path).stat().st_size,
    )


def _identify_all(models: tuple[str, ...], options: Options) -> tuple[Target, ...]:
    return tuple(identify(model, trusted=options.trusted) for model in models)


def _open_all(request: CheckRequest, session: Session) -> tuple[Part, ...]:
    return tuple(session.open(target) for target in _identify_all(request.models, request.options))


def _judge(request: CheckRequest, session: Session, parts: tuple[Part, ...]) -> Judged:
    if request.mode is Mode.SEQUENTIAL:
        return judge_chain(request, session, parts)
    return judge_beside(request, session, parts)


def _check_report(request: CheckRequest, session: Session, parts: tuple[Part, ...], judged: Judged) -> CheckReport:
    result = None
    if judged.result is not None:
        result = ", ".join(str(spec) for _, spec in leaves(judged.result))
    notes = tuple(_device_notes(parts, session))
    seams = tuple(
        replace(seam, findings=(*seam.findings, *notes)) if not number else seam
        for number, seam in enumerate(judged.seams)
    )
    return CheckReport(
        request.mode,
        session.options.device,
        request.strict,
        tuple(model_report(part, found) for part, found in zip(parts, judged.contracts, strict=True)),
        seams,
        str(judged.call) if judged.call is not None else None,
        result,
    )


def _device_notes(parts: tuple[Part, ...], session: Session) -> list[Finding]:
    """Devices that a trace holds as constants and that are not the one it runs on here."""
    notes = list[Finding]()
    running = session.real_device.partition(":")[0]
    for part in dict.fromkeys(parts):
        devices = part.target.file.devices if part.target.file is not None else ()
        other = [device for device in devices if device.partition(":")[0] != running]
        if other:
            title = f"{part.name} holds {', '.join(other)} as a constant and runs on {running} here"
            notes.append(Finding("CC305", title, (Side(part.name, "its code"),)))
    if session.options.device == "meta":
        notes.append(Finding("CC309", "shapes were explored on meta, and the verdict rests on a forward on the cpu"))
    return notes


def _portability(part: Part) -> tuple[str, ...]:
    """What would stop a move to another device."""
    notes = list[str]()
    devices = part.target.file.devices if part.target.file is not None else ()
    if devices:
        notes.append(f"its code holds {', '.join(devices)} as a constant: it cannot run on another device")
    if len(part.facts.devices) > 1:
        notes.append(f"its tensors lie on several devices: {', '.join(part.facts.devices)}")
    if any(dtype.startswith(("quint", "qint")) for dtype in part.facts.dtypes):
        notes.append("quantised tensors run on the CPU alone")
    if "float64" in part.facts.dtypes:
        notes.append("float64 tensors cannot move to Apple's mps")
    return tuple(notes)


def _selected(contract: Contract, options: Options, part: Part) -> Contract:
    """The contract with the outputs that `--select` names, all of them where it names none."""
    for selection in options.selections:
        try:
            path = select(contract.result, selection.port)
        except KeyError:
            ports = ", ".join(port.name for port in contract.outputs)
            problem = Problem("CC103", f"no output {selection.port}", part.name, (f"outputs there: {ports}",))
            raise CouldNotAttempt(problem) from None
        outputs = tuple(port for port in contract.outputs if port.path[: len(path)] == path)
        result = next(spec for where, spec in leaves(contract.result) if where == outputs[0].path)
        contract = replace(contract, outputs=outputs[:1], result=result)
    return contract


def _write(request: JoinRequest, session: Session, parts: tuple[Part, ...], judged: Judged, output: Output) -> Written:
    """Build into a temporary sibling, verify what a fresh load of it does, and only then give it its name."""
    blueprint, call = judged.blueprint, judged.call
    assert blueprint is not None
    assert call is not None
    calls = _verification_calls(session, judged, blueprint, call)
    provenance = _provenance(request, session, parts, judged, blueprint)
    with whole(output) as path:
        session.tell("building the join")
        build = BuildRequest(blueprint, call, str(path), request.seed, provenance)
        built = _build(session.worker, build, output)
        session.tell("verifying the join")
        verified = session.worker.verify(VerifyRequest(blueprint, calls, str(path), request.seed))
        _refuse_failed(verified, output)
        size, sha256 = path.stat().st_size, _sha256(str(path))
    return Written(
        output.path,
        size,
        sha256,
        bridges(blueprint),
        blueprint.merge if isinstance(blueprint, Parallel) else None,
        verified.checks,
        _join_notes(blueprint, built.notes, verified, calls),
    )


def _build(worker: Worker, request: BuildRequest, output: Output) -> Built:
    try:
        return worker.build(request)
    except CouldNotAttempt as failure:
        if not full(output):
            raise
        problem = Problem("CC921", "no space is left where the output goes", output.path, failure.problem.notes)
        raise CouldNotAttempt(problem) from failure


def _verification_calls(session: Session, judged: Judged, blueprint: Blueprint, call: Call) -> tuple[Call, Call]:
    """Two batch sizes where axis 0 is free for all parts, else the same sizes twice, with other values."""
    first = next((found.contract for found in judged.contracts if isinstance(found, Found)), None)
    larger = larger_batch(first, call) if first is not None else None
    if larger is not None and isinstance(session.run(blueprint, larger), Accepted):
        return call, larger
    return call, call


def _refuse_failed(verified: Verified, output: Output) -> None:
    failed = [check for check in verified.checks if not check.passed]
    if failed:
        notes = tuple(f"{check.name}: {check.detail}" for check in failed)
        raise CouldNotAttempt(
            Problem("CC923", "the joined file does not do what its parts do, so it was not kept", output.path, notes)
        )


def _join_notes(
    blueprint: Blueprint, built: tuple[str, ...], verified: Verified, calls: tuple[Call, Call]
) -> tuple[Finding, ...]:
    notes = [Finding("CC502", note) for note in built]
    layers = [step for bridge in bridges(blueprint) for step in bridge if isinstance(step, Linear)]
    notes += [
        Finding("CC503", f"{describe(layer)}: it has to be fitted before its outputs mean anything") for layer in layers
    ]
    if verified.cut:
        shown = ", ".join(verified.cut[:3]) + (", …" if len(verified.cut) > 3 else "")
        title = f"{len(verified.cut)} parameters get no gradient, in the parts run by hand too: {shown}"
        notes.append(Finding("CC501", title))
    if calls[0] == calls[1]:
        notes.append(Finding("CC504", "verified at one size with two seeds: axis 0 of the input is not free"))
    return tuple(notes)


def _provenance(
    request: JoinRequest, session: Session, parts: tuple[Part, ...], judged: Judged, blueprint: Blueprint
) -> str:
    contracts = [found.contract if isinstance(found, Found) else None for found in judged.contracts]
    merge = {"merge": str(blueprint.merge), "dim": blueprint.dim} if isinstance(blueprint, Parallel) else None
    facts = {
        "version": PROVENANCE_VERSION,
        "mode": str(request.check.mode),
        "inputs": [
            {
                "name": Path(part.target.path).name,
                "kind": str(part.target.kind),
                "sha256": _sha256(part.target.path),
                "contract": str(contract) if contract is not None else None,
                "training": part.facts.training,
            }
            for part, contract in zip(parts, contracts, strict=True)
        ],
        "example": str(judged.call),
        "bridges": [[encode(step) for step in bridge] for bridge in bridges(blueprint)],
        "merge": merge,
        "seed": request.seed,
        "device": session.real_device,
        "training": str(session.options.training),
        "composecli": _version("composecli"),
        "torch": _version("torch"),
    }
    return json.dumps(facts, indent=1)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
