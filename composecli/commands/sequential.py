"""Models in sequence: compare the ports of each seam, then run everything that leads up to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from composecli.commands.bridging import (
    holds,
    is_allowed,
    plan_bridges,
    steps_of,
    with_bridge_fix,
)
from composecli.commands.chain import Chain, Ports, Seam, Upstream, pair_ports, start_chain
from composecli.commands.composition import (
    Composition,
    InferenceResult,
    at_own_rank,
    no_such_output,
    not_found_finding,
)
from composecli.commands.opened_model import OpenedModels, all_have_modules
from composecli.commands.other_examples import with_other_example
from composecli.commands.other_ranks import with_contract_at_rank
from composecli.commands.requests import CheckRequest
from composecli.commands.samples import sample_findings
from composecli.commands.seam_fit import narrowed_contract
from composecli.commands.seam_report import Findings, Rows, port_rows
from composecli.commands.seam_sizes import SizedSeam, with_sizes, without_reason
from composecli.commands.session import Session
from composecli.commands.stated_inputs import refuse_inputs_of_no_model
from composecli.commands.tried_fixes import with_tried_fixes
from composecli.compose.bridged import bridged_findings
from composecli.compose.compare import (
    ConsumerPort,
    PortPair,
    PortPairs,
    ProducerPort,
    compare,
)
from composecli.compose.confirm import confirm
from composecli.compose.propagate import propagate
from composecli.compose.shared_symbols import shared_symbol_findings
from composecli.compose.wiring import Edge, wire
from composecli.core.blueprint import Feed, Sequential, Stage
from composecli.core.contract import Port, output_names
from composecli.core.dims import Unknown
from composecli.core.findings import Finding, Verdict, verdict_of
from composecli.core.fit import Fit
from composecli.core.observations import Accepted, Observation
from composecli.core.pytree import (
    KeyPath,
    TensorSpec,
    Tree,
    find_path,
    get_path,
    leaves,
)
from composecli.core.rules import Rule, Severity
from composecli.inference import Found, NotFound


@dataclass(frozen=True, slots=True)
class _Passed:
    """The stage with which a seam holds, bridged if it has to be, and the run that shows it."""

    seam: Seam
    stage: Stage
    observation: Accepted


def check_sequential(request: CheckRequest, session: Session, parts: OpenedModels) -> Composition:
    """Judge every seam of the chain, and try the fixes of those that do not hold."""
    refuse_inputs_of_no_model(session.options.inputs, len(parts))
    stated = session.stated_input(parts[0])
    first = at_own_rank(session.infer(parts[0], stated=stated))

    def judge(changed: CheckRequest) -> Composition:
        return _judge_chain(changed, session, parts, first)

    return with_tried_fixes(judge(request), request, judge)


def _judge_chain(
    request: CheckRequest, session: Session, parts: OpenedModels, first: InferenceResult
) -> Composition:
    """Judge every seam of the chain. The seams after one that fails are judged as well."""
    chain = Chain(request, session, parts)
    chain.contracts.append(first)
    upstream = start_chain(parts[0], first)
    unbroken = upstream is not None
    for number in range(1, len(parts)):
        following = _judge_seam(chain, number, upstream)
        unbroken = unbroken and following is not None
        upstream = following
        if upstream is None and number < len(parts) - 1:
            # Behind a seam that fails, the chain starts again with an example of the next model.
            chain.contracts[number] = at_own_rank(chain.contracts[number])
            upstream = start_chain(parts[number], chain.contracts[number])
    blueprint = result = call = None
    if isinstance(first, Found):
        call = first.contract.example
    if unbroken and upstream is not None:
        blueprint = Sequential(upstream.stages)
        call, result = upstream.call, upstream.result
    contracts, seams = tuple(chain.contracts), tuple(chain.seams)
    bridged = tuple(chain.bridged)
    return Composition(contracts, seams, blueprint, call, result, bridged)


def _judge_seam(chain: Chain, number: int, upstream: Upstream | None) -> Upstream | None:
    """Judge the seam before a model, and return the chain up to the next seam if this one holds."""
    part = chain.parts[number]
    settings = chain.session.settings(part, number + 1)
    edge = Edge(chain.parts[number - 1].name, part.name, settings)
    if upstream is None:
        rows = port_rows(None, chain.infer(number))
        missing = _no_producer_finding(chain, number - 1)
        chain.report(edge, rows, (missing,))
        return None
    path = _selected_path(chain, number, upstream.result)
    if isinstance(path, Finding):
        rows = port_rows(upstream.outputs, chain.infer(number), where=upstream.first.where)
        chain.report(edge, rows, (path,))
        return None
    wiring = wire(upstream.result, part.facts.arguments, path, edge)
    if isinstance(wiring, Finding):
        outputs = _below(upstream.outputs, path)
        rows = port_rows(outputs, chain.infer(number), where=upstream.first.where)
        chain.report(edge, rows, (wiring,))
        return None
    chain.infer(number, given=wiring.call)
    seam = Seam(chain, number, upstream, path, wiring, edge)
    return _judge_wired(seam)


def _no_producer_finding(chain: Chain, number: int) -> Finding:
    """Return why nothing reaches a seam: no input of its producer is known or reaches it."""
    part, found = chain.parts[number], chain.contracts[number]
    if isinstance(found, NotFound):
        stated = chain.session.has_stated_call(number + 1)
        return not_found_finding(part.name, part.facts, found, stated=stated)
    return Finding(
        Rule.PRODUCER_REFUSED,
        f"nothing reaches the seam: {part.name} comes after a seam that does not fit",
    )


def _below(ports: Ports, path: KeyPath) -> Ports:
    """Return the ports inside the part of a result that is at this path."""
    depth = len(path)
    return tuple(port for port in ports if port.path[:depth] == path)


def _selected_path(chain: Chain, number: int, result: Tree) -> KeyPath | Finding:
    """Return the path that `--select` names in the result of the producer before this model.

    A selection without a number applies to every model that has such a port. One that no model had
    when the last seam is reached is a mistake.
    """
    name = chain.parts[number - 1].name
    for selection in chain.request.options.selections:
        if selection.model not in (None, number):
            continue
        path = find_path(result, selection.port)
        if path is not None:
            chain.selected.add(selection)
            return path
        if selection.model == number:
            return no_such_output(name, selection.port, result)
    unused = set(chain.request.options.selections) - chain.selected
    is_last = number == len(chain.parts) - 1
    if unused and is_last:
        mistaken = unused.pop()
        return no_such_output(name, mistaken.port, result)
    return ()


def _judge_wired(seam: Seam) -> Upstream | None:
    """Judge a seam whose ports are known, and return the chain up to the next one if it holds."""
    pairs = pair_ports(seam)
    findings = list[Finding]()
    for producer, consumer in pairs:
        findings += compare(producer, consumer)
    findings += shared_symbol_findings(pairs)
    moved = None
    if not seam.searched:
        moved = with_other_example(seam, pairs, findings)
    if moved is not None:
        return _judge_wired(moved)
    observation = seam.run(seam.stage)
    fed = pairs or _pair_unknown_inputs(seam)
    confirmed = confirm(tuple(findings), observation, fed)
    confirmed = _without_contract(seam, confirmed)
    sized = with_sizes(seam, pairs, confirmed, observation)
    if sized.moved is not None:
        return _judge_wired(sized.moved)
    confirmed, passed = _pass_seam(seam, sized.findings, observation)
    has_fix = any(finding.fix is not None for finding in confirmed)
    if not has_fix:
        adopted = with_contract_at_rank(seam, pairs, findings)
        if adopted is not None:
            return _judge_wired(adopted)
    return _conclude(seam, pairs, replace(sized, findings=confirmed), passed)


def _conclude(
    seam: Seam, pairs: PortPairs, sized: SizedSeam, passed: _Passed | None
) -> Upstream | None:
    """Report a seam, and return the chain up to the next one if it holds."""
    findings, fit = without_reason(seam, pairs, sized), sized.fit
    if passed is not None:
        findings += sample_findings(passed.seam, pair_ports(passed.seam), passed.stage)
    if any(finding.rule is Rule.IDS_OUT_OF_RANGE for finding in findings):
        # Some runs at other sizes failed because of an id, and not of their sizes.
        condition = Rule.FITS_ONLY_AT_SOME_SIZES
        findings = tuple(item for item in findings if item.rule is not condition)
        fit, passed = Fit(), None
    seam.chain.report(seam.edge, _rows(seam, pairs), findings, fit)
    if passed is None:
        return None
    following = _extend(passed)
    if sized.known is None:
        return following
    return replace(following, first=narrowed_contract(following.first, sized.known))


def _without_contract(seam: Seam, findings: Findings) -> Findings:
    """Return the findings; a refusal by a model that no input is known to run says nothing."""
    found = seam.chain.contracts[seam.number]
    if isinstance(found, Found):
        return findings
    part = seam.chain.parts[seam.number]
    stated = seam.chain.session.has_stated_call(seam.number + 1)
    unknown = not_found_finding(part.name, part.facts, found, stated=stated)
    known = list[Finding]()
    for finding in findings:
        if finding.rule is Rule.REFUSED_BY_CONSUMER:
            known.append(replace(unknown, sides=finding.sides))
        else:
            known.append(finding)
    return tuple(known)


def _rows(seam: Seam, pairs: PortPairs) -> Rows:
    """Return the rows of the paired ports, or of all ports if none are paired."""
    where = seam.upstream.first.where
    if not pairs:
        path = seam.wiring.feeds[0].path
        return port_rows(_below(seam.upstream.outputs, path), seam.contract, where=where)
    outputs = tuple(producer.port for producer, _ in pairs)
    strict = seam.chain.request.strict
    compared = [compare(producer, consumer, strict=strict) for producer, consumer in pairs]
    return port_rows(outputs, seam.contract, compared, where)


def _pass_seam(
    seam: Seam, findings: Findings, observation: Observation
) -> tuple[Findings, _Passed | None]:
    """Return how the chain goes on behind the seam, if it does, with a bridge if one is needed.

    The findings that a bridge resolves get it as their fix, even if the user did not allow it.
    """
    has_error = any(finding.severity is Severity.ERROR for finding in findings)
    if not has_error:
        fits = verdict_of(findings) is Verdict.COMPATIBLE
        if fits and isinstance(observation, Accepted):
            return findings, _Passed(seam, seam.stage, observation)
        return findings, None
    seam = _before_bridge(seam, findings)
    chain, pairs = seam.chain, pair_ports(seam)
    bridged = _try_bridge(seam, pairs, findings)
    if bridged is None:
        return findings, None
    steps = steps_of(feed.bridge for feed in bridged.stage.feeds)
    findings = with_bridge_fix(findings, steps, chain.request)
    for (producer, consumer), feed in zip(pairs, bridged.stage.feeds, strict=True):
        findings += bridged_findings(producer, feed.bridge, consumer, strict=chain.request.strict)
    titles = {finding.title for finding in findings}
    shared = shared_symbol_findings(_after_bridge(pairs, bridged.stage))
    findings += tuple(finding for finding in shared if finding.title not in titles)
    if not is_allowed(chain.request.bridge, steps):
        return findings, None
    chain.bridged.append(len(chain.seams))
    return findings, bridged


def _try_bridge(seam: Seam, pairs: PortPairs, findings: Findings) -> _Passed | None:
    """Plan a bridge that resolves all errors, and return it if the chain then runs."""
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if not all(finding.rule.bridgeable for finding in errors):
        return None
    if len(pairs) != len(seam.wiring.feeds) or not all_have_modules(seam.chain.parts):
        return None
    bridges = plan_bridges((producer.example, consumer.port) for producer, consumer in pairs)
    if bridges is None or not any(bridges):
        return None
    request = seam.chain.request
    for pair, bridge in zip(pairs, bridges, strict=True):
        if bridge and not holds(pair, bridge, request):
            return None
    feeds = list[Feed]()
    for feed, bridge in zip(seam.wiring.feeds, bridges, strict=True):
        feeds.append(replace(feed, bridge=bridge))
    stage = replace(seam.stage, feeds=tuple(feeds))
    shared = shared_symbol_findings(_after_bridge(pairs, stage), strict=True)
    if request.strict and shared:
        return None
    observation = seam.run(stage)
    if not isinstance(observation, Accepted):
        return None
    return _Passed(seam, stage, observation)


def _before_bridge(seam: Seam, findings: Findings) -> Seam:
    """Return the seam as a bridge leaves it: one that changes a product flattens its axes first."""
    if any(finding.rule is Rule.SIZE_OUT_OF_RANGE for finding in findings):
        return replace(seam, is_flattened=True)
    return seam


def _extend(passed: _Passed) -> Upstream:
    """Return the chain with the consumer of the seam that is passed as its last stage."""
    seam, pairs = passed.seam, pair_ports(passed.seam)
    contract, upstream = seam.contract, seam.upstream
    result = passed.observation.result
    if contract is None:
        outputs = _ports_without_contract(result)
    elif len(pairs) == len(contract.required):
        outputs = propagate(contract.outputs, _after_bridge(pairs, passed.stage))
    else:
        outputs = contract.outputs
    stages = (*upstream.stages, passed.stage)
    return replace(upstream, stages=stages, result=result, outputs=outputs)


def _ports_without_contract(result: Tree) -> Ports:
    """Return the ports of a result of which one example is known and no dim."""
    unknown = Unknown("the contract of this model was not found")
    names = output_names(result)
    ports = list[Port]()
    for path, spec in leaves(result):
        dims = (unknown,) * len(spec.sizes)
        ports.append(Port(names[path], path, spec.dtype, dims))
    return tuple(ports)


def _pair_unknown_inputs(seam: Seam) -> PortPairs:
    """Pair the tensors that are fed to a model without a contract with a nameless input."""
    upstream = seam.upstream
    ports = list[Port]()
    tensors = list[TensorSpec]()
    for feed in seam.wiring.feeds:
        ports += _below(upstream.outputs, feed.path)
        part = get_path(upstream.result, feed.path)
        tensors += [spec for _, spec in leaves(part)]
    nameless = Port("its input", (), "", ())
    consumer = ConsumerPort(seam.edge.consumer, nameless)
    pairs = list[PortPair]()
    for port, tensor in zip(ports, tensors, strict=False):
        producer = ProducerPort(seam.edge.producer, port, tensor)
        pairs.append((producer, consumer))
    return tuple(pairs)


def _after_bridge(pairs: PortPairs, stage: Stage) -> PortPairs:
    """Return the pairs with each producer port as its bridge leaves it.

    `float32[B, 5]` with a layer that makes it fit `float32[N, 3]` is `float32[B, 3]`.
    """
    if len(pairs) != len(stage.feeds):
        return pairs
    bridged = list[PortPair]()
    for (producer, consumer), feed in zip(pairs, stage.feeds, strict=True):
        bridged.append((producer.after(feed.bridge), consumer))
    return tuple(bridged)
