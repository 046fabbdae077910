"""Inference: from clues and probes to a contract, or to what was tried.

`ask` runs one forward. Evidence is used cheapest first: what the user states, what the file states, then what
the model's first parameters ask for; every contract is confirmed by a probe, and which dims are free is probed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from composecli.axes import explore
from composecli.contract import Contract, Evidence, EvidenceKind, Port, input_name, output_name
from composecli.dims import Free
from composecli.observations import Accepted, Observation, Refused
from composecli.propose import (
    Proposal,
    asked_axes,
    corrected,
    from_layers,
    from_nothing,
    ids_below,
    other_sizes,
    recurrent,
    recurrent_axes,
    widened,
)
from composecli.protocol import ModelFacts
from composecli.trees import Call, Path, TensorSpec, call_leaves, call_with
from composecli.variation import Start, resized

Ask = Callable[[Call, bool], Observation]

MOST_PROPOSALS = 24


@dataclass(frozen=True, slots=True)
class Clues:
    """What is known before anything runs. `stated` stands alone: where it is refused nothing else is tried."""

    facts: ModelFacts
    stated: Proposal | None = None
    exported: Contract | None = None
    traced: Call | None = None
    given: Call | None = None


@dataclass(frozen=True, slots=True)
class Found:
    contract: Contract
    probes: int


@dataclass(frozen=True, slots=True)
class NotFound:
    """What was tried, each with where it was refused, the best try first; and how many forwards that took."""

    tried: tuple[tuple[Call, Refused], ...]
    probes: int


@dataclass
class _Probing:
    """Counts and remembers: the same call is never run twice."""

    ask: Ask
    count: int = 0
    seen: dict[tuple[Call, bool], Observation] = field(default_factory=dict)

    def run(self, call: Call, *, watch: bool = False) -> Observation:
        key = (call, watch)
        if key not in self.seen:
            self.count += 1
            self.seen[key] = self.ask(call, watch)
        return self.seen[key]


def infer(clues: Clues, ask: Ask) -> Found | NotFound:
    """The contract of a model, or what was tried to find it."""
    probing = _Probing(ask)
    refusals = list[tuple[Call, Refused]]()
    todo = list(_proposals(clues))[:MOST_PROPOSALS]
    tried = set[Call]()
    while todo and len(tried) < MOST_PROPOSALS:
        proposal = todo.pop(0)
        if proposal.call in tried:
            continue
        tried.add(proposal.call)
        match probing.run(proposal.call, watch=True):
            case Accepted() as seen:
                proposal, seen = _as_the_weights_say(proposal, seen, clues, probing)
                proposal, seen = _near_the_given(proposal, seen, clues, probing)
                return Found(_settle(proposal, seen, clues, probing), probing.count)
            case Refused() as refused:
                refusals.append((proposal.call, refused))
                better = corrected(proposal, refused.meetings)
                if better is not None and clues.stated is None and proposal.evidence is None:
                    todo.insert(len(todo) if proposal.call == clues.given else 0, better)
    refusals.sort(key=lambda item: -len(item[1].meetings))
    return NotFound(tuple(refusals), probing.count)


def _as_the_weights_say(
    proposal: Proposal, seen: Accepted, clues: Clues, probing: _Probing
) -> tuple[Proposal, Accepted]:
    """What the weights ask for, where that is accepted too: a size of 1 that is only broadcast against them, or a
    width that a traced recurrent layer takes though its weights have another, says nothing of the contract."""
    if clues.stated is not None or proposal.dims:
        return proposal, seen
    asked = widened(proposal, seen.meetings) or recurrent(proposal, clues.facts)
    if asked is None:
        return proposal, seen
    again = probing.run(asked.call, watch=True)
    return (asked, again) if isinstance(again, Accepted) else (proposal, seen)


def _near_the_given(proposal: Proposal, seen: Accepted, clues: Clues, probing: _Probing) -> tuple[Proposal, Accepted]:
    """The given tensor with its dtype alone changed, where that is accepted: then its rank is no difference."""
    given = list(call_leaves(clues.given)) if clues.given is not None else []
    found = list(call_leaves(proposal.call))
    if len(given) != 1 or len(found) != 1 or proposal.dims or given[0][1].dtype == found[0][1].dtype:
        return proposal, seen
    path, spec = given[0]
    near = replace(spec, dtype=found[0][1].dtype, below=found[0][1].below)
    assert clues.given is not None
    retyped = replace(proposal, call=call_with(clues.given, {path: near}), asked=())
    again = probing.run(retyped.call, watch=True)
    return (retyped, again) if isinstance(again, Accepted) else (proposal, seen)


def _proposals(clues: Clues) -> Iterator[Proposal]:
    if clues.stated is not None:
        yield clues.stated
        return
    if clues.exported is not None:
        inputs = clues.exported.inputs
        dims = tuple((port.path, port.dims) for port in inputs if port.dims is not None)
        yield Proposal(clues.exported.example, clues.exported.evidence[0], dims)
    if clues.given is not None:
        yield Proposal(clues.given)
    if clues.traced is not None:
        yield Proposal(clues.traced, Evidence(EvidenceKind.TRACED, f"example {clues.traced}"))
    first = list(from_layers(clues.facts))
    yield from first
    yield from from_nothing(clues.facts)
    for proposal in first[:1]:
        yield from other_sizes(proposal)


def _settle(proposal: Proposal, seen: Accepted, clues: Clues, probing: _Probing) -> Contract:
    call = _with_ids(proposal.call, seen)
    if clues.exported is not None and proposal.call == clues.exported.example:
        return _settle_exported(clues.exported, seen, probing)
    rankless = _rankless(call, seen, clues, probing)
    if rankless is not None:
        return rankless
    asked = frozenset((*proposal.asked, *asked_axes(call, seen.meetings), *recurrent_axes(call, clues.facts)))
    explored = explore(Start(call, seen.result, asked, dict(proposal.dims)), probing.run)
    inputs = tuple(
        Port(input_name(path, _argument_name(clues.facts, call, path)), path, spec.dtype, explored.inputs[path])
        for path, spec in call_leaves(call)
    )
    evidence = [proposal.evidence] if proposal.evidence is not None else []
    evidence.append(Evidence(EvidenceKind.PROBED, "; ".join([f"{seen.device} at {call}", *explored.notes])))
    return Contract(inputs, explored.outputs, call, seen.result, tuple(evidence))


def _settle_exported(stated: Contract, seen: Accepted, probing: _Probing) -> Contract:
    """The stated contract, confirmed. A range from 2 is export's own, not the model's, so 1 is tried."""
    dims = [(port.path, axis, dim) for port in stated.inputs for axis, dim in enumerate(port.dims or ())]
    ones = set[str]()
    for name in dict.fromkeys(dim.name for _, _, dim in dims if isinstance(dim, Free) and dim.low == 2):
        axes = tuple((path, axis) for path, axis, dim in dims if isinstance(dim, Free) and dim.name == name)
        if isinstance(probing.run(resized(stated.example, axes, 1)), Accepted):
            ones.add(name)
    tried = f"; {', '.join(sorted(ones))} took 1" if ones else ""
    probed = Evidence(EvidenceKind.PROBED, f"{seen.device} at {stated.example}{tried}")
    return replace(
        stated,
        inputs=tuple(_from_one(port, ones) for port in stated.inputs),
        outputs=tuple(_from_one(port, ones) for port in stated.outputs),
        result=seen.result,
        evidence=(*stated.evidence, probed),
    )


def _from_one(port: Port, names: set[str]) -> Port:
    dims = port.dims or ()
    return replace(port, dims=tuple(replace(d, low=1) if isinstance(d, Free) and d.name in names else d for d in dims))


def _with_ids(call: Call, seen: Accepted) -> Call:
    changes = dict[Path, TensorSpec]()
    for path, spec in call_leaves(call):
        below = ids_below(spec, seen.meetings) if spec.dtype in ("int64", "int32") else None
        if below is not None:
            changes[path] = replace(spec, below=below)
    return call_with(call, changes)


def _argument_name(facts: ModelFacts, call: Call, path: Path) -> str | None:
    number = path[0]
    assert isinstance(number, int)
    argument = call.arguments[number]
    if argument.name is not None:
        return argument.name
    return facts.arguments[number].name if number < len(facts.arguments) else None


def _rankless(call: Call, seen: Accepted, clues: Clues, probing: _Probing) -> Contract | None:
    """A contract of any rank for a model without parameters that takes one tensor of every rank as it is."""
    inputs = list(call_leaves(call))
    if clues.facts.parameters or clues.stated is not None or len(inputs) != 1 or len(call.arguments) != 1:
        return None
    path, spec = inputs[0]
    results = [(spec, seen)]
    for sizes in ((4,), (2, 4), (2, 3, 4), (2, 3, 4, 5)):
        other = replace(spec, sizes=sizes, sample=None)
        observation = probing.run(call_with(call, {path: other}))
        if not isinstance(observation, Accepted):
            return None
        results.append((other, observation))
    if any(not isinstance(o.result, TensorSpec) or o.result.sizes != s.sizes for s, o in results):
        return None
    assert isinstance(seen.result, TensorSpec)
    detail = f"{seen.device} at {call} and ranks 1, 2, 3, 4"
    name = _argument_name(clues.facts, call, path)
    return Contract(
        (Port(input_name(path, name), path, spec.dtype, None),),
        (Port(output_name(()), (), seen.result.dtype, None),),
        call,
        seen.result,
        (Evidence(EvidenceKind.PROBED, detail),),
    )
