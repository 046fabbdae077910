"""Fixes that were tried: a command is suggested with its effect on the whole composition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from composecli.commands.bridging import bridge_mode, steps_of
from composecli.commands.composition import Composition
from composecli.commands.requests import CheckRequest, Selection
from composecli.commands.results import SeamReport
from composecli.core.blueprint import Mode
from composecli.core.bridge import Bridge
from composecli.core.findings import Finding, Fix, Verdict
from composecli.core.pytree import Tree, leaves, port_names
from composecli.core.rules import Rule
from composecli.inference import Found

# Judge the same opened models for another request.
Judge = Callable[[CheckRequest], Composition]

MAX_OUTPUTS_TRIED = 12
MAX_SUGGESTIONS = 4
_ABOUT_OUTPUTS = frozenset(
    (
        Rule.INPUT_COUNT_DIFFERS,
        Rule.STRUCTURE_DIFFERS,
        Rule.NO_SUCH_OUTPUT,
        Rule.MERGE_NEEDS_TENSORS,
    )
)


def with_tried_fixes(composition: Composition, request: CheckRequest, judge: Judge) -> Composition:
    """Return the composition with fixes that were tried.

    A finding about outputs gets the selections with which its seam holds. A bridge gets the mode
    that all seams need. Where other seams do not hold then, the fix says so.
    """
    trials = _Trials(composition, request, judge)
    seams = list[SeamReport]()
    for number, seam in enumerate(composition.seams):
        findings = tuple(trials.tried(finding, number) for finding in seam.findings)
        seams.append(replace(seam, findings=findings))
    return replace(composition, seams=tuple(seams))


@dataclass(frozen=True)
class _Trials:
    """Tries fixes on a composition that was judged for a request."""

    composition: Composition
    request: CheckRequest
    judge: Judge

    def tried(self, finding: Finding, number: int) -> Finding:
        """Return a finding of the seam with this number, with fixes that were tried."""
        if finding.rule in _ABOUT_OUTPUTS:
            fixes = tuple(self._selections(number))
            return replace(finding, fix=next(iter(fixes), None), other_fixes=fixes[1:])
        if finding.fix is not None and finding.fix.bridge:
            return replace(finding, fix=self._bridge(finding.fix, number))
        return finding

    def _bridge(self, fix: Fix, number: int) -> Fix:
        """Return the fix with the bridge mode that all seams need, and its effect on them all."""
        if len(self.composition.seams) == 1:
            return fix
        mode = bridge_mode(steps_of(self._bridges()))
        command = self.request.bridged(mode)
        trial = self.judge(replace(self.request, bridge=mode))
        remaining = tuple(_remaining(trial, number))
        return replace(fix, command=command, effect=(*fix.effect, *remaining))

    def _bridges(self) -> Iterator[Bridge]:
        """Yield the bridge of each fix."""
        for seam in self.composition.seams:
            for finding in seam.findings:
                if finding.fix is not None:
                    yield finding.fix.bridge

    def _selections(self, number: int) -> Iterator[Fix]:
        """Yield a fix for each output with which the seam holds, without a bridge if possible."""
        fits = list[Fix]()
        bridged = list[Fix]()
        for port in self._ports(number):
            request = self._selecting(port, number)
            trial = self.judge(request)
            effect = f"feeds {port} to {_consumer_port(trial, number)}"
            match trial.seams[number].verdict:
                case Verdict.COMPATIBLE:
                    remaining = _remaining(trial, number)
                    command = request.again()
                    fits.append(Fix(command, (effect, *remaining)))
                case Verdict.BRIDGEABLE:
                    bridged += _bridged(trial, number, effect)
                case _:
                    continue
        yield from (fits or bridged)[:MAX_SUGGESTIONS]

    def _ports(self, number: int) -> list[str]:
        """Return the outputs to try at a seam: tensors first, then the containers of tensors."""
        models = [number]
        if self.request.mode is Mode.PARALLEL:
            models = [0, number + 1]
        ports = list[str]()
        for model in models:
            found = self.composition.contracts[model]
            if isinstance(found, Found):
                ports += _output_names(found.contract.result)
        return list(dict.fromkeys(ports))[:MAX_OUTPUTS_TRIED]

    def _selecting(self, port: str, number: int) -> CheckRequest:
        """Return the request with this output selected in place of any other at the seam."""
        options = self.request.options
        selections = [Selection(None, port)]
        if self.request.mode is Mode.SEQUENTIAL and len(self.request.models) > 2:
            model = number + 1
            others = [item for item in options.selections if item.model not in (None, model)]
            selections = [Selection(model, port), *others]
        return replace(self.request, options=options.selecting(tuple(selections)))


def _output_names(result: Tree) -> Iterator[str]:
    """Yield the names of the tensors in a result, then those of its containers."""
    names = port_names(result)
    for path, _ in leaves(result):
        if path:
            yield names[path]
    containers = dict.fromkeys(path[:-1] for path in names if path)
    for path in containers:
        if path:
            yield names[path]


def _consumer_port(trial: Composition, number: int) -> str:
    """Return the name of what is fed at a seam."""
    found = trial.contracts[number + 1]
    if isinstance(found, Found) and len(found.contract.required) == 1:
        return found.contract.required[0].name
    return trial.seams[number].consumer


def _bridged(trial: Composition, number: int, effect: str) -> Iterator[Fix]:
    """Yield the join that bridges a seam behind a selection; the seam stays incompatible now."""
    for finding in trial.seams[number].findings:
        if finding.fix is not None:
            remaining = _remaining(trial, number)
            yield Fix(finding.fix.command, (effect, *finding.fix.effect, *remaining))
            return


def _remaining(trial: Composition, number: int) -> Iterator[str]:
    """Yield a text for each other seam that does not hold in a trial."""
    for other, seam in enumerate(trial.seams):
        if other == number or other in trial.bridged or seam.verdict is Verdict.COMPATIBLE:
            continue
        yield f"{seam.producer} -> {seam.consumer} is {seam.verdict} all the same"
