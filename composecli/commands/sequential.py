"""Models one after the other: each seam judged by comparison, then by really running what leads up to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from composecli.commands.composition import Composition, no_such_output, not_found_finding
from composecli.commands.opened_model import OpenedModel
from composecli.commands.port_rows import Rows, marked, port_rows
from composecli.commands.requests import CheckRequest, Selection
from composecli.commands.results import SeamReport
from composecli.commands.session import Session
from composecli.commands.suggestions import allowed, find_bridge, with_bridge_fix, with_select_fix
from composecli.compose.compare import ConsumerPort, ProducerPort, compare, shared_symbol_findings
from composecli.compose.confirm import PortPairs, confirm
from composecli.compose.propagate import propagate
from composecli.compose.wiring import Edge, Wiring, wire
from composecli.core.blueprint import Sequential, Stage
from composecli.core.contract import Contract, Port, output_name
from composecli.core.dims import Free, Unknown
from composecli.core.findings import Finding, Verdict, verdict_of
from composecli.core.observations import Accepted, Observation
from composecli.core.pytree import Call, KeyPath, Tree, find_path, get_path, leaves
from composecli.core.rules import Rule, Severity
from composecli.inference.result import Found, NotFound

Contracts = list[Found | NotFound]


@dataclass(frozen=True, slots=True)
class Upstream:
    """What leads up to a seam: the stages, the call that they got, and the last one's result and ports."""

    stages: tuple[Stage, ...]
    call: Call
    result: Tree
    outputs: tuple[Port, ...]
    ranges: tuple[Free, ...] = ()


@dataclass
class _Chain:
    request: CheckRequest
    session: Session
    parts: tuple[OpenedModel, ...]
    contracts: Contracts = field(default_factory=list)
    seams: list[SeamReport] = field(default_factory=list)
    bridged: list[int] = field(default_factory=list)
    selected: set[Selection] = field(default_factory=set)


def check_sequential(
    request: CheckRequest, session: Session, parts: tuple[OpenedModel, ...]
) -> Composition:
    """Every seam of the chain. A seam that does not hold does not keep the later ones from being judged."""
    chain = _Chain(request, session, parts)
    first = session.infer(parts[0], stated=session.stated_input(parts[0]))
    chain.contracts.append(first)
    upstream = _start(parts[0], first)
    whole = upstream is not None
    for number in range(1, len(parts)):
        through = _judge_seam(chain, number, upstream)
        whole = whole and through is not None
        upstream = through or _start(parts[number], chain.contracts[number])
    blueprint = Sequential(upstream.stages) if whole and upstream is not None else None
    start = first.contract.example if isinstance(first, Found) else None
    return Composition(
        tuple(chain.contracts),
        tuple(chain.seams),
        blueprint,
        start,
        upstream.result if blueprint is not None and upstream is not None else None,
        tuple(chain.bridged),
    )


def _start(part: OpenedModel, found: Found | NotFound) -> Upstream | None:
    if isinstance(found, NotFound):
        return None
    contract = found.contract
    ranges = tuple(
        dim for port in contract.inputs for dim in port.dims or () if isinstance(dim, Free)
    )
    return Upstream(
        (Stage(part.handle),), contract.example, contract.result, contract.outputs, ranges
    )


def _judge_seam(chain: _Chain, number: int, upstream: Upstream | None) -> Upstream | None:
    """Judge the seam before this part; what leads up to the next one, where this one holds."""
    ends = Edge(chain.parts[number - 1].name, chain.parts[number].name)
    part = chain.parts[number]
    if upstream is None:
        chain.contracts.append(chain.session.infer(part))
        rows = port_rows(None, _contract(chain, number))
        _report(chain, ends, rows, (_producer_finding(chain, number - 1),))
        return None
    path = _selected(chain, number, upstream.result)
    if isinstance(path, Finding):
        chain.contracts.append(chain.session.infer(part))
        _report(chain, ends, port_rows(upstream.outputs, _contract(chain, number)), (path,))
        return None
    wired = wire(upstream.result, part.facts.arguments, path, ends)
    given = wired.call if isinstance(wired, Wiring) else None
    chain.contracts.append(chain.session.infer(part, given=given))
    contract = _contract(chain, number)
    if isinstance(wired, Finding):
        finding = with_select_fix(wired, chain.request, number, upstream.result, contract)
        _report(chain, ends, port_rows(_below(upstream.outputs, path), contract), (finding,))
        return None
    return _judge_wired(chain, number, upstream, wired, ends)


def _contract(chain: _Chain, number: int) -> Contract | None:
    found = chain.contracts[number]
    return found.contract if isinstance(found, Found) else None


def _below(ports: tuple[Port, ...], path: KeyPath) -> tuple[Port, ...]:
    return tuple(port for port in ports if port.path[: len(path)] == path)


def _selected(chain: _Chain, number: int, result: Tree) -> KeyPath | Finding:
    """The path that `--select` names in this producer's result. One without a number goes to each that has the port."""
    name = chain.parts[number - 1].name
    for selection in chain.session.options.selections:
        if selection.model not in (None, number):
            continue
        path = find_path(result, selection.port)
        if path is not None:
            chain.selected.add(selection)
            return path
        if selection.model == number:
            return no_such_output(name, selection.port, result)
    unused = set(chain.session.options.selections) - chain.selected
    if unused and number == len(chain.parts) - 1:
        return no_such_output(name, unused.pop().port, result)
    return ()


def _judge_wired(
    chain: _Chain, number: int, upstream: Upstream, wired: Wiring, ends: Edge
) -> Upstream | None:
    part, contract = chain.parts[number], _contract(chain, number)
    pairs = _pairs(upstream, wired, contract, ends)
    compared = [compare(offer, ask, strict=chain.request.strict) for offer, ask in pairs]
    findings = tuple(finding for row in compared for finding in row)
    findings = (*findings, *shared_symbol_findings(pairs, strict=chain.request.strict))
    stages = (*upstream.stages, Stage(part.handle, wired.feeds))
    observation = chain.session.run(Sequential(stages), upstream.call)
    findings = confirm(findings, observation, pairs or _unknown_ends(upstream, wired, ends))
    through: Observation | None = None
    if any(finding.severity is Severity.ERROR for finding in findings):
        bridge = find_bridge(findings, pairs, stages[-1])
        ran = (
            chain.session.run(Sequential((*upstream.stages, bridge)), upstream.call)
            if bridge is not None
            else None
        )
        if bridge is not None and isinstance(ran, Accepted):
            findings = with_bridge_fix(findings, bridge, chain.request)
            if allowed(chain.request.bridge, bridge):
                stages = (*upstream.stages, bridge)
                chain.bridged.append(len(chain.seams))
                through = ran
    elif verdict_of(findings) is Verdict.COMPATIBLE:
        through = observation
    if pairs:
        rows = port_rows(tuple(offer.port for offer, _ in pairs), contract, compared)
    else:
        rows = port_rows(_below(upstream.outputs, wired.feeds[0].path), contract)
    _report(chain, ends, rows, findings)
    if not isinstance(through, Accepted):
        return None
    outputs = contract.outputs if contract is not None else _seen_ports(through.result)
    if contract is not None and len(pairs) == len(contract.required):
        outputs = propagate(outputs, _as_fed(pairs, stages[-1]))
    return Upstream(stages, upstream.call, through.result, outputs, upstream.ranges)


def _seen_ports(result: Tree) -> tuple[Port, ...]:
    """The ports of a model whose contract was not found and which ran all the same: nothing is known of their dims."""
    reason = "the contract of this model was not found"
    return tuple(
        Port(output_name(path), path, spec.dtype, tuple(Unknown(reason) for _ in spec.sizes))
        for path, spec in leaves(result)
    )


def _unknown_ends(upstream: Upstream, wired: Wiring, ends: Edge) -> PortPairs:
    """What is given, beside an input of which nothing is known."""
    ports = [port for feed in wired.feeds for port in _below(upstream.outputs, feed.path)]
    specs = [
        spec for feed in wired.feeds for _, spec in leaves(get_path(upstream.result, feed.path))
    ]
    return tuple(
        (
            ProducerPort(ends.producer, port, spec),
            ConsumerPort(ends.consumer, Port("its input", (), "", ())),
        )
        for port, spec in zip(ports, specs, strict=False)
    )


def _as_fed(pairs: PortPairs, stage: Stage) -> PortPairs:
    """The pairs as the bridge leaves them: a bridged offer has plain sizes and no symbols but the batch."""
    if len(pairs) != len(stage.feeds):
        return pairs
    fed = list[tuple[ProducerPort, ConsumerPort]]()
    for (offer, ask), feed in zip(pairs, stage.feeds, strict=True):
        if not feed.bridge or ask.port.dims is None:
            fed.append((offer, ask))
            continue
        dims = tuple(offer.shown[0] if axis == 0 else dim for axis, dim in enumerate(ask.port.dims))
        fed.append((replace(offer, port=replace(offer.port, dims=dims)), ask))
    return tuple(fed)


def _pairs(upstream: Upstream, wired: Wiring, contract: Contract | None, ends: Edge) -> PortPairs:
    """Each tensor that is fed with the port that takes it."""
    if contract is None:
        return ()
    ports = {port.path: port for port in contract.inputs}
    names = {
        argument.name: number
        for number, argument in enumerate(contract.example.arguments)
        if argument.name
    }
    gives = {port.path: port for port in upstream.outputs}
    pairs = list[tuple[ProducerPort, ConsumerPort]]()
    for number, feed in enumerate(wired.feeds):
        argument = names.get(feed.name, number) if feed.name else number
        for inner, spec in leaves(get_path(upstream.result, feed.path)):
            taken, given = ports.get((argument, *inner)), gives.get((*feed.path, *inner))
            if taken is not None and given is not None:
                pairs.append(
                    (
                        ProducerPort(ends.producer, given, spec, upstream.ranges),
                        ConsumerPort(ends.consumer, taken),
                    )
                )
    return tuple(pairs)


def _producer_finding(chain: _Chain, number: int) -> Finding:
    """Why nothing reaches the seam: the producer's input was not found, or it stands behind a seam that fails."""
    part, found = chain.parts[number], chain.contracts[number]
    if isinstance(found, NotFound):
        return not_found_finding(
            part.name, part.facts, found, stated=bool(chain.session.options.inputs)
        )
    return Finding(
        Rule.PRODUCER_REFUSED,
        f"nothing reaches the seam: {part.name} stands behind a seam that does not hold",
    )


def _report(chain: _Chain, ends: Edge, rows: Rows, findings: tuple[Finding, ...]) -> None:
    verdict = verdict_of(findings)
    chain.seams.append(
        SeamReport(ends.producer, ends.consumer, marked(rows, verdict), findings, verdict)
    )
