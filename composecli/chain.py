"""Models one after the other: each seam judged by comparison, then by really running what leads up to it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, replace
from itertools import zip_longest

from composecli.blueprint import Feed, Sequential, Stage
from composecli.bridge import BridgeMode, Linear, describe, plan
from composecli.contract import Contract, Port, takes
from composecli.findings import Finding, Fix, Side, Verdict, verdict_of
from composecli.infer import Found, NotFound
from composecli.judgement import confirm, refusal_finding
from composecli.observations import Accepted
from composecli.requests import CheckRequest
from composecli.results import PortRow, SeamReport
from composecli.rules import Severity
from composecli.session import Part, Session
from composecli.trees import Call, Path, TensorSpec, Tree, call_leaves, leaves, path_text
from composecli.verdict import Ask, Offer, carried, compare
from composecli.wiring import Ends, Wired, at, select, wire

Contracts = list[Found | NotFound]


@dataclass(frozen=True, slots=True)
class Upstream:
    """What leads up to a seam: the stages, the call that they got, and the last one's result and ports."""

    stages: tuple[Stage, ...]
    call: Call
    result: Tree
    outputs: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is known of the whole: `blueprint` and `call` only where every seam lets it be built."""

    contracts: tuple[Found | NotFound, ...]
    seams: tuple[SeamReport, ...]
    blueprint: Sequential | None
    call: Call | None
    result: Tree | None
    bridged: tuple[int, ...] = ()


@dataclass
class _Chain:
    request: CheckRequest
    session: Session
    parts: tuple[Part, ...]
    contracts: Contracts = field(default_factory=list)
    seams: list[SeamReport] = field(default_factory=list)
    bridged: list[int] = field(default_factory=list)


def judge_chain(request: CheckRequest, session: Session, parts: tuple[Part, ...]) -> Judged:
    """Every seam of the chain. A seam that does not hold does not keep the later ones from being judged."""
    chain = _Chain(request, session, parts)
    first = session.infer(parts[0], stated=session.stated(parts[0].facts))
    chain.contracts.append(first)
    upstream = _start(parts[0], first)
    whole = upstream is not None
    for number in range(1, len(parts)):
        through = _judge_seam(chain, number, upstream)
        whole = whole and through is not None
        upstream = through or _start(parts[number], chain.contracts[number])
    blueprint = Sequential(upstream.stages) if whole and upstream is not None else None
    start = first.contract.example if isinstance(first, Found) else None
    return Judged(
        tuple(chain.contracts),
        tuple(chain.seams),
        blueprint,
        start,
        upstream.result if blueprint is not None and upstream is not None else None,
        tuple(chain.bridged),
    )


def _start(part: Part, found: Found | NotFound) -> Upstream | None:
    if isinstance(found, NotFound):
        return None
    contract = found.contract
    return Upstream((Stage(part.real),), contract.example, contract.result, contract.outputs)


def _judge_seam(chain: _Chain, number: int, upstream: Upstream | None) -> Upstream | None:
    """Judge the seam before this part; what leads up to the next one, where this one holds."""
    ends = Ends(chain.parts[number - 1].name, chain.parts[number].name)
    part = chain.parts[number]
    if upstream is None:
        chain.contracts.append(chain.session.infer(part))
        finding = producer_finding(chain.contracts[number - 1], chain, number - 1)
        rows = _rows((), _contract(chain, number))
        _report(chain, ends, rows, (finding,))
        return None
    path = _selected(chain, number, upstream.result)
    if isinstance(path, Finding):
        chain.contracts.append(chain.session.infer(part))
        _report(chain, ends, _rows(upstream.outputs, _contract(chain, number)), (path,))
        return None
    wired = wire(upstream.result, part.facts.arguments, path, ends)
    given = wired.call if isinstance(wired, Wired) else None
    chain.contracts.append(chain.session.infer(part, given=given))
    contract = _contract(chain, number)
    if isinstance(wired, Finding):
        finding = _with_select_fix(wired, chain, number, upstream, contract)
        _report(chain, ends, _rows(_below(upstream.outputs, path), contract), (finding,))
        return None
    return _judge_wired(chain, number, upstream, wired, ends)


def _contract(chain: _Chain, number: int) -> Contract | None:
    found = chain.contracts[number]
    return found.contract if isinstance(found, Found) else None


def _below(ports: tuple[Port, ...], path: Path) -> tuple[Port, ...]:
    return tuple(port for port in ports if port.path[: len(path)] == path)


def _selected(chain: _Chain, number: int, result: Tree) -> Path | Finding:
    """The path that `--select` names in this result; a selection without a number goes to any that has it."""
    for selection in chain.session.options.selections:
        if selection.model not in (None, number):
            continue
        try:
            return select(result, selection.port)
        except KeyError:
            if selection.model == number or _nobody_has(chain, number, result):
                name = chain.parts[number - 1].name
                listed = ", ".join(path_text(path) or "the tensor itself" for path, _ in leaves(result))
                title = f"{name} has no output {selection.port}"
                return Finding("CC103", title, (Side(name, selection.port),), notes=(f"outputs there: {listed}",))
    return ()


def _nobody_has(chain: _Chain, number: int, result: Tree) -> bool:
    """Whether a selection is for this producer: it is the only one, or the only one with several outputs."""
    return len(chain.parts) == 2 or (number == 1 and not isinstance(result, TensorSpec))


def _judge_wired(chain: _Chain, number: int, upstream: Upstream, wired: Wired, ends: Ends) -> Upstream | None:
    part, contract = chain.parts[number], _contract(chain, number)
    pairs = _pairs(upstream, wired, contract, ends)
    compared = [compare(offer, ask, strict=chain.request.strict) for offer, ask in pairs]
    findings = tuple(finding for row in compared for finding in row)
    stages = (*upstream.stages, Stage(part.real, wired.feeds))
    observation = chain.session.run(Sequential(stages), upstream.call)
    findings = confirm(findings, observation, pairs, part.name)
    through = None
    if any(finding.severity is Severity.ERROR for finding in findings):
        findings, bridged = _with_bridge_fix(chain, findings, pairs, upstream, Stage(part.real, wired.feeds))
        if bridged is not None and _allowed(chain.request.bridge, bridged):
            observation = chain.session.run(Sequential((*upstream.stages, bridged)), upstream.call)
            stages = (*upstream.stages, bridged)
            chain.bridged.append(len(chain.seams))
            through = observation
    elif verdict_of(findings) is Verdict.COMPATIBLE:
        through = observation
    rows = _rows(tuple(offer.port for offer, _ in pairs), contract, compared)
    if not pairs:
        rows = _rows(upstream.outputs, contract)
    _report(chain, ends, rows, findings)
    if not isinstance(through, Accepted):
        return None
    outputs = contract.outputs if contract is not None else ()
    if contract is not None and len(pairs) == len(contract.inputs):
        outputs = carried(outputs, _as_fed(pairs, stages[-1]))
    return Upstream(stages, upstream.call, through.result, outputs)


def _as_fed(pairs: tuple[tuple[Offer, Ask], ...], stage: Stage) -> tuple[tuple[Offer, Ask], ...]:
    """The pairs as the bridge leaves them: a bridged offer has plain sizes and no symbols but the batch."""
    fed = list[tuple[Offer, Ask]]()
    for (offer, ask), feed in zip(pairs, stage.feeds, strict=True):
        if not feed.bridge or ask.port.dims is None:
            fed.append((offer, ask))
            continue
        dims = tuple(offer.shown[0] if axis == 0 else dim for axis, dim in enumerate(ask.port.dims))
        fed.append((replace(offer, port=replace(offer.port, dims=dims)), ask))
    return tuple(fed)


def _pairs(upstream: Upstream, wired: Wired, contract: Contract | None, ends: Ends) -> tuple[tuple[Offer, Ask], ...]:
    """Each tensor that is fed with the port that takes it."""
    if contract is None:
        return ()
    ports = {port.path: port for port in contract.inputs}
    names = {argument.name: number for number, argument in enumerate(contract.example.arguments) if argument.name}
    gives = {port.path: port for port in upstream.outputs}
    pairs = list[tuple[Offer, Ask]]()
    for number, feed in enumerate(wired.feeds):
        argument = names.get(feed.name, number) if feed.name else number
        for inner, spec in leaves(at(upstream.result, feed.path)):
            taken, given = ports.get((argument, *inner)), gives.get((*feed.path, *inner))
            if taken is not None and given is not None:
                pairs.append((Offer(ends.producer, given, spec), Ask(ends.consumer, taken)))
    return tuple(pairs)


def _allowed(mode: BridgeMode, stage: Stage) -> bool:
    steps = [step for feed in stage.feeds for step in feed.bridge]
    trains = any(isinstance(step, Linear) for step in steps)
    return mode is BridgeMode.LINEAR or (mode is BridgeMode.AUTO and not trains)


def _with_bridge_fix(
    chain: _Chain, findings: tuple[Finding, ...], pairs: tuple[tuple[Offer, Ask], ...], upstream: Upstream, stage: Stage
) -> tuple[tuple[Finding, ...], Stage | None]:
    """The findings with a bridge as their fix, where one is found and really runs."""
    bridgeable = {"CC201", "CC202", "CC203"}
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not all(finding.code in bridgeable for finding in errors) or len(pairs) != len(stage.feeds):
        return findings, None
    feeds = list[Feed]()
    for feed, (offer, ask) in zip(stage.feeds, pairs, strict=True):
        steps = plan(offer.found, ask.port, BridgeMode.LINEAR)
        if steps is None:
            return findings, None
        feeds.append(replace(feed, bridge=steps))
    bridged = replace(stage, feeds=tuple(feeds))
    if not isinstance(chain.session.run(Sequential((*upstream.stages, bridged)), upstream.call), Accepted):
        return findings, None
    steps = tuple(step for feed in feeds for step in feed.bridge)
    mode = "linear" if any(isinstance(step, Linear) for step in steps) else "auto"
    fix = Fix(
        chain.request.command("--bridge", mode, "-o", "both.pt"),
        tuple(f"adds {describe(step)}" for step in steps),
        steps,
    )
    mended = tuple(replace(f, fix=fix) if f.severity is Severity.ERROR else f for f in findings)
    return mended, bridged


def _with_select_fix(
    finding: Finding, chain: _Chain, number: int, upstream: Upstream, contract: Contract | None
) -> Finding:
    """The finding with the `--select` that mends it: an output that the consumer's one input takes."""
    if contract is None or len(contract.inputs) != 1 or finding.code != "CC102":
        return finding
    fits = [path for path, spec in leaves(upstream.result) if takes(contract.inputs[0], spec) is not False]
    if not fits:
        return finding
    word = ".".join(map(str, fits[0])) if len(fits[0]) == 1 else path_text(fits[0])
    word = f"{number}:{word}" if len(chain.parts) > 2 else word
    command = chain.request.command("--select", word, name="check")
    return replace(finding, fix=Fix(command, (f"feeds {path_text(fits[0])} to {contract.inputs[0].name}",)))


def producer_finding(found: Found | NotFound, chain: _Chain, number: int) -> Finding:
    """Why nothing reaches the seam: the producer refused its stated input, or its input was not found."""
    part = chain.parts[number]
    if isinstance(found, Found):
        return Finding("CC308", f"nothing reaches the seam: {part.name} stands behind a seam that does not hold")
    return not_found_finding(part, found, chain.session, chain.request)


def not_found_finding(part: Part, found: NotFound, session: Session, request: CheckRequest | None) -> Finding:
    best = found.tried[0] if found.tried else None
    if session.options.inputs and best is not None and request is not None:
        finding = refusal_finding(best[1], part.name)
        code = finding.code if finding.code in ("CC302", "CC307") else "CC308"
        title = finding.title if code != "CC308" else f"{part.name} refuses the input that was stated for it"
        return replace(finding, code=code, title=title, sides=(Side(part.name, str(best[0])),))
    notes = [f"tried {call}: refused at {refused.where}" for call, refused in found.tried[:3]]
    if best is not None:
        notes.append(f"the best try ended with {best[1].error}: {best[1].message}")
    arguments = ", ".join(f"{a.name}: {a.type_name or '?'}" for a in part.facts.arguments if a.required)
    if arguments:
        notes.append(f"forward takes {arguments}")
    ids = best is not None and any(spec.dtype == "int64" for _, spec in call_leaves(best[0]))
    example = "int64[1,16]" if ids else "float32[N,3,224,224]"
    command = f"composecli inspect {shlex.quote(part.name)} --input '{example}'"
    return Finding(
        "CC304",
        f"what {part.name} takes could not be found in {found.probes} probes",
        (Side(part.name, "its input"),),
        notes=tuple(notes),
        fix=Fix(command, ("states the input: its dtype and sizes, once for each input",)),
    )


def _rows(
    outputs: tuple[Port, ...],
    contract: Contract | None,
    compared: list[tuple[Finding, ...]] | None = None,
) -> tuple[PortRow, ...]:
    inputs = contract.inputs if contract is not None else ()
    rows = list[PortRow]()
    for number, (given, taken) in enumerate(zip_longest(outputs, inputs)):
        found = compared[number] if compared is not None and number < len(compared) else ()
        known = compared is not None and number < len(compared)
        verdict = verdict_of(found) if known else Verdict.UNKNOWN
        rows.append(
            PortRow(
                given.name if given is not None else "",
                str(given) if given is not None else "",
                taken.name if taken is not None else "",
                str(taken) if taken is not None else "",
                verdict,
            )
        )
    return tuple(rows)


def _report(chain: _Chain, ends: Ends, rows: tuple[PortRow, ...], findings: tuple[Finding, ...]) -> None:
    verdict = verdict_of(findings)
    alone = len(rows) == 1 or verdict is Verdict.COMPATIBLE
    marked = tuple(
        replace(row, verdict=verdict) if alone or row.verdict is Verdict.INCOMPATIBLE else row for row in rows
    )
    chain.seams.append(SeamReport(ends.producer, ends.consumer, marked, findings, verdict))
