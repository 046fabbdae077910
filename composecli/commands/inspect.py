"""composecli inspect: the contract of one model, its layers, and its ties to a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from composecli.commands.axis_fates import axis_reports
from composecli.commands.composition import InferenceResult, not_found_finding
from composecli.commands.contract_writing import contract_output, write_contract
from composecli.commands.opened_model import OpenedModel
from composecli.commands.portability import device_ties
from composecli.commands.progress import Progress, silent
from composecli.commands.references import locate
from composecli.commands.remedies import remedies_written_out
from composecli.commands.requests import InspectRequest, Selection
from composecli.commands.resolve import identify_all
from composecli.commands.results import AxisReport, InspectReport, ModelReport
from composecli.commands.session import Session
from composecli.commands.stated_inputs import refuse_inputs_of_no_model
from composecli.core.contract import Contract, Port
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.findings import Finding
from composecli.core.pytree import Call, KeyPath, get_path, select
from composecli.core.rules import Rule
from composecli.files.writing.staged_output import OutputFile
from composecli.inference import Found, NotFound
from composecli.workers.protocol import DescribeRequest, LayerRow, Worker


def inspect(request: InspectRequest, worker: Worker, progress: Progress = silent) -> InspectReport:
    """Return the contract of a model with its evidence, its layers and its ties to a device.

    Raises:
        CouldNotAttempt: if the model cannot be read or run, or is not trusted.
        KeyboardInterrupt: if the user ended it before anything was known.
    """
    with remedies_written_out(request):
        return _inspect(request, worker, progress)


def _inspect(request: InspectRequest, worker: Worker, progress: Progress) -> InspectReport:
    """Return the whole report, or what was known when the user stopped."""
    output = _contract_output(request)
    session = Session(worker, request.options, progress)
    targets = identify_all((request.model,), request.options)
    session.confine(targets)
    part = session.open(targets[0])
    try:
        refuse_inputs_of_no_model(session.options.inputs, 1)
        found = session.infer(part, stated=session.stated_input(part))
    except KeyboardInterrupt:
        if not session.partial_results:
            raise
        return _interrupted_report(session, part)
    report = _report(session, part, found)
    if output is None or isinstance(found, NotFound):
        return report
    # The file describes the whole model, whichever outputs are shown.
    write_contract(found.contract, output)
    return replace(report, contract_file=output.path)


def _contract_output(request: InspectRequest) -> OutputFile | None:
    """Return where to write the contract; None if that is not asked for."""
    if request.contract_file is None:
        return None
    path = locate(request.model).path
    return contract_output(request.contract_file, path, force=request.force)


def _report(session: Session, part: OpenedModel, found: InferenceResult) -> InspectReport:
    """Return the whole report; the worker describes the layers with the example call."""
    report, example = _model_report(session, part, found)
    provenance = None
    if part.target.file is not None:
        provenance = part.target.file.provenance
    axes: tuple[AxisReport, ...] = ()
    if isinstance(found, Found):
        axes = tuple(axis_reports(session, part, found.contract))
    rows: tuple[LayerRow, ...] = ()
    if part.has_module:
        rows = session.worker.ask(DescribeRequest(part.handle, example)).rows
    return InspectReport(
        report,
        part.facts,
        rows,
        _finding(session, part, found),
        device_ties(part),
        provenance,
        _file_size(part),
        isolation=session.sandbox,
        axes=axes,
        has_module=part.has_module,
    )


def _model_report(
    session: Session, part: OpenedModel, found: InferenceResult
) -> tuple[ModelReport, Call | None]:
    """Return the report of the model, with the selected outputs, and an example call."""
    report = session.report(part, found)
    if isinstance(found, NotFound):
        return report, None
    selections = session.options.selections
    contract = _with_selected_outputs(found.contract, selections, part.name)
    return replace(report, contract=contract), contract.example


def _with_selected_outputs(
    contract: Contract, selections: tuple[Selection, ...], model: str
) -> Contract:
    """Return the contract with only the outputs that the first `--select` names.

    Without a selection, it is the whole contract.

    Raises:
        CouldNotAttempt: if the model has no such output.
    """
    if not selections:
        return contract
    path = _selected_path(contract, selections[0].port, model)
    depth = len(path)

    def selected(ports: tuple[Port, ...]) -> tuple[Port, ...]:
        return tuple(port for port in ports if port.path[:depth] == path)

    any_rank = contract.any_rank
    if any_rank is not None:
        any_rank = replace(any_rank, outputs=selected(any_rank.outputs))
    outputs, result = selected(contract.outputs), get_path(contract.result, path)
    return replace(contract, outputs=outputs, result=result, any_rank=any_rank)


def _selected_path(contract: Contract, port: str, model: str) -> KeyPath:
    """Return the path of a selected output; an unknown one is refused."""
    try:
        return select(contract.result, port)
    except KeyError:
        outputs = ", ".join(output.name for output in contract.outputs)
        notes = (f"available outputs: {outputs}",)
        problem = Problem(Rule.NO_SUCH_OUTPUT, f"no output {port}", model, notes)
        raise CouldNotAttempt(problem) from None


def _finding(session: Session, part: OpenedModel, found: InferenceResult) -> Finding | None:
    """Return why there is no contract; None if there is one."""
    if isinstance(found, Found):
        return None
    stated = session.has_stated_call()
    return not_found_finding(part.name, part.facts, found, stated=stated)


def _interrupted_report(session: Session, part: OpenedModel) -> InspectReport:
    """Return the report of a search that the user stopped, without the layers."""
    return InspectReport(
        session.partial_results[0],
        part.facts,
        layers=(),
        finding=None,
        portability=(),
        provenance=None,
        file_size=_file_size(part),
        interrupted=True,
        isolation=session.sandbox,
    )


def _file_size(part: OpenedModel) -> int | None:
    """Return the size of the file, or of a factory's weights, in bytes; None without a file."""
    if part.target.path is None:
        return None
    return Path(part.target.path).stat().st_size
