"""composecli inspect: the contract of one model, and what is worth knowing of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from composecli.commands.check import _identify, _silent
from composecli.commands.composition import not_found_finding
from composecli.commands.opened_model import OpenedModel
from composecli.commands.portability import ties
from composecli.commands.requests import InspectRequest, Options
from composecli.commands.results import InspectReport
from composecli.commands.session import Progress, Session
from composecli.core.contract import Contract
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.pytree import get_path, select
from composecli.core.rules import Rule
from composecli.inference.result import Found
from composecli.workers.protocol import DescribeRequest, Worker


def inspect(request: InspectRequest, worker: Worker, tell: Progress = _silent) -> InspectReport:
    """The contract of one model with its evidence, its layers, and what is worth knowing of it.

    Raises:
        CouldNotAttempt: the model cannot be read or run, or is not trusted.
    """
    session = Session(worker, request.options, tell)
    target = _identify(request.model, request.options)
    session.confine((target,))
    part = session.open(target)
    try:
        found = session.infer(part, stated=session.stated_input(part))
    except KeyboardInterrupt:
        if not session.known:
            raise
        size = Path(part.target.path).stat().st_size
        return InspectReport(
            session.known[0],
            part.facts,
            (),
            None,
            (),
            None,
            size,
            interrupted=True,
            isolation=session.confined,
        )
    report = session.report(part, found)
    contract = found.contract if isinstance(found, Found) else None
    if contract is not None:
        report = replace(report, contract=_selected(contract, request.options, part))
    example = contract.example if contract is not None else None
    layers = worker.describe(DescribeRequest(part.handle, example)).rows
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
        ties(part),
        file.provenance if file is not None else None,
        Path(part.target.path).stat().st_size,
        isolation=session.confined,
    )


def _selected(contract: Contract, options: Options, part: OpenedModel) -> Contract:
    """The contract with the output that `--select` names, all of them where it names none."""
    for selection in options.selections:
        try:
            path = select(contract.result, selection.port)
        except KeyError:
            ports = ", ".join(port.name for port in contract.outputs)
            problem = Problem(
                Rule.NO_SUCH_OUTPUT,
                f"no output {selection.port}",
                part.name,
                (f"outputs there: {ports}",),
            )
            raise CouldNotAttempt(problem) from None
        outputs = tuple(port for port in contract.outputs if port.path[: len(path)] == path)
        return replace(contract, outputs=outputs, result=get_path(contract.result, path))
    return contract
