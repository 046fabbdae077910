"""Inference: from clues and probes to a contract, or to what was tried.

`ask` runs one forward. Evidence is used cheapest first: what the user states, what the file states, then what
the model's first parameters ask for; every contract is confirmed by a probe, and which dims are free is probed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from composecli.axes import Explored, explore
from composecli.budget import Budget
from composecli.contract import (
    ANY_FLOAT,
    FLOATS,
    Contract,
    Evidence,
    EvidenceKind,
    Port,
    input_name,
    output_name,
)
from composecli.corrections import asked_axes, ids_below, recurrent, recurrent_axes, widened
from composecli.dims import Free
from composecli.errors import CouldNotAttempt
from composecli.observations import Accepted, Observation, Refused, Untried
from composecli.propose import Proposal, by_name, seeds
from composecli.protocol import Detail, ModelFacts
from composecli.search import Start as Begun
from composecli.search import search
from composecli.trees import Argument, Axis, Call, Path, TensorSpec, call_leaves, call_with, leaves, resized
from composecli.variation import Group, Start, vary

Ask = Callable[[Call, Detail], Observation]


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
    """`stopped` says why no more was tried, where there was more to try: then some dims are open."""

    contract: Contract
    probes: int
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class NotFound:
    """What was tried, each with where it was refused, the best try first; and how many forwards that took.

    `stopped` says why no more was tried, where there was more to try.
    """

    tried: tuple[tuple[Call, Refused], ...]
    probes: int
    stopped: str = ""


@dataclass
class _Probing:
    """Counts and remembers: the same call is never run twice. Stops at the end of the budget, and at Ctrl-C."""

    ask: Ask
    budget: Budget
    count: int = 0
    stopped: str = ""
    seen: dict[Call, Observation] = field(default_factory=dict)
    watched: dict[Call, Observation] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)

    def run(self, call: Call) -> Observation | Untried:
        """Whether the call is taken."""
        found = self.watched.get(call) or self.seen.get(call)
        return found or self._run(call, Detail.OUTCOME, self.seen)

    def watch(self, call: Call) -> Observation | Untried:
        """The same with what the input meets, or why it is refused."""
        return self.watched.get(call) or self._run(call, Detail.MEETINGS, self.watched)

    def _run(self, call: Call, detail: Detail, memory: dict[Call, Observation]) -> Observation | Untried:
        if self.count >= self.budget.probes:
            self.stopped = f"the budget of {self.budget.probes} probes is spent"
        elif time.monotonic() - self.start > self.budget.seconds:
            self.stopped = f"the budget of {self.budget.seconds:g} s is spent"
        if self.stopped:
            return Untried(self.stopped)
        self.count += 1
        try:
            memory[call] = self.ask(call, detail)
        except KeyboardInterrupt:
            self.stopped = INTERRUPTED
            return Untried(self.stopped)
        except CouldNotAttempt as failure:
            if not any(isinstance(seen, Accepted) for seen in self.watched.values()):
                raise
            self.stopped = failure.problem.title
            return Untried(self.stopped)
        return memory[call]


INTERRUPTED = "it was interrupted"


def infer(clues: Clues, ask: Ask, budget: Budget | None = None) -> Found | NotFound:
    """The contract of a model, or what was tried to find it."""
    probing = _Probing(ask, budget or Budget())
    guesses = seeds(clues.facts) if clues.stated is None else iter(())
    begun = search(_stated(clues), guesses, clues.facts, probing.watch)
    if not isinstance(begun, Begun):
        return NotFound(tuple(begun), probing.count, probing.stopped)
    proposal, seen = _as_the_weights_say(begun.proposal, begun.seen, clues, probing)
    proposal, seen = _near_the_given(proposal, seen, clues, probing)
    proposal, seen = _as_numbers(proposal, seen, clues, probing)
    return Found(_settle(proposal, seen, clues, probing), probing.count, probing.stopped)


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
    again = probing.watch(asked.call)
    return (asked, again) if isinstance(again, Accepted) else (proposal, seen)


def _as_numbers(proposal: Proposal, seen: Accepted, clues: Clues, probing: _Probing) -> tuple[Proposal, Accepted]:
    """Guessed whole numbers that index nothing as floats, where these are taken too."""
    if proposal.evidence is not None or proposal.call == clues.given:
        return proposal, seen
    floats = next((dtype for dtype in clues.facts.dtypes if dtype.startswith(("float", "bfloat"))), "float32")
    for number, (path, spec) in enumerate(list(call_leaves(proposal.call))):
        name = _argument_name(clues.facts, proposal.call, path) or ""
        index = ids_below(number, spec, seen.meetings) is not None or name.endswith(("ids", "mask"))
        if spec.dtype == "int64" and not index:
            changed = replace(proposal, call=call_with(proposal.call, {path: replace(spec, dtype=floats, below=2)}))
            again = probing.watch(changed.call)
            if isinstance(again, Accepted):
                proposal, seen = changed, again
    return proposal, seen


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
    again = probing.watch(retyped.call)
    return (retyped, again) if isinstance(again, Accepted) else (proposal, seen)


def _stated(clues: Clues) -> Iterator[Proposal]:
    """What the user states alone; else what the file states, and a producer's real output."""
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


def _settle(proposal: Proposal, seen: Accepted, clues: Clues, probing: _Probing) -> Contract:
    call = _with_ids(proposal.call, seen)
    if clues.exported is not None and proposal.call == clues.exported.example:
        return _settle_exported(clues.exported, seen, probing)
    rankless = _rankless(call, seen, clues, probing)
    if rankless is not None:
        return rankless
    start = _start(proposal, call, seen, clues, probing)
    explored = explore(start, probing.run)
    if explored.together:
        start = _at_the_common_end(start, explored.together, probing)
        explored = explore(start, probing.run)
    contract = _contract(proposal, start, explored, clues, seen.device)
    return replace(contract, inputs=(*contract.inputs, *_optional(contract, clues, probing)))


def _start(proposal: Proposal, call: Call, seen: Accepted, clues: Clues, probing: _Probing) -> Start:
    recurrent = recurrent_axes(call, clues.facts)
    asked = dict.fromkeys((*proposal.asked, *asked_axes(call, seen.meetings)))
    fixed = frozenset((*recurrent, *(axis for axis in asked if not _is_taken_beside(call, axis, probing))))
    specs = [spec for _, spec in call_leaves(call)]
    words = {spec.below for spec in specs if spec.dtype in ("int64", "int32")}
    limits = _limits(clues.facts) - words
    return Start(call, seen.result, fixed, dict(proposal.dims), tuple(sorted(limits)), _cost(clues.facts, specs))


def _is_taken_beside(call: Call, axis: Axis, probing: _Probing) -> bool:
    """Whether an axis that a parameter seems to fix takes another size all the same."""
    size = dict(call_leaves(call))[axis[0]].sizes[axis[1]]
    return isinstance(probing.run(resized(call, (axis,), size + 1)), Accepted)


def _limits(facts: ModelFacts) -> set[int]:
    """Lengths at which something that the model holds ends: tables of positions, masks, and what libraries state."""
    found = set[int]()
    for layer in facts.layers:
        for tensor in layer.parameters:
            table = layer.class_name.endswith("Embedding") and len(tensor.sizes) == 2
            found |= set(tensor.sizes[:1]) if table else set(tensor.sizes[:2]) if len(tensor.sizes) == 3 else set()
        for tensor in layer.buffers:
            found |= set(tensor.sizes)
    for setting in facts.settings:
        if setting.name in ("max_length", "max_position_embeddings", "max_source_positions", "context_length"):
            found |= set(setting.values)
    return {size for size in found if 8 < size <= LONGEST}


LONGEST = 8192
WORDS = 8
IDS_RANK = 2
MOST_OPTIONAL = 4


def _cost(facts: ModelFacts, specs: list[TensorSpec]) -> float:
    """About how many multiplications an element of the input stands for: tokens meet every weight, pixels few."""
    rank = max((len(spec.sizes) for spec in specs), default=0)
    whole = any(spec.dtype in ("int64", "int32") for spec in specs)
    return facts.parameters / (1 if whole else {2: 300, 3: 64}.get(rank, 500))


def _at_the_common_end(start: Start, axes: tuple[Axis, ...], probing: _Probing) -> Start:
    """The same start at the largest size that all these axes take at once."""
    group = Group("", axes, dict(call_leaves(start.call))[axes[0][0]].sizes[axes[0][1]])
    sizes = {dict(call_leaves(start.call))[path].sizes[axis] for path, axis in axes}
    if len(sizes) > 1:
        return start
    group.accepted[group.base] = tuple(leaves(start.result))
    vary(start, group, probing.run)
    call = resized(start.call, axes, max(group.accepted))
    seen = probing.run(call)
    return replace(start, call=call, result=seen.result) if isinstance(seen, Accepted) else start


def _optional(contract: Contract, clues: Clues, probing: _Probing) -> Iterator[Port]:
    """Arguments that may be left out and go beside the ids, as their names say: those that are taken with the sizes of
    the ids, moved with them, and refused with others."""
    first = contract.inputs[0] if contract.inputs else None
    specs = dict(call_leaves(contract.example))
    if first is None or clues.stated is not None or first.dims is None or len(specs[first.path].sizes) != IDS_RANK:
        return
    ids = specs[first.path]
    given = {argument.name for argument in contract.example.arguments} | {port.name for port in contract.inputs}
    free = [argument for argument in clues.facts.arguments if not argument.required and argument.name not in given]
    found = [(argument.name, next(by_name(argument.name, clues.facts), None)) for argument in free]
    likely = [(name, spec) for name, spec in found if spec is not None and len(spec.sizes) == IDS_RANK]
    number = len(contract.example.arguments)
    for name, spec in likely[:MOST_OPTIONAL] if ids.dtype in ("int64", "int32") else ():
        beside = replace(spec, sizes=ids.sizes, below=min(spec.below, ids.sizes[1]))
        if _goes_beside(contract.example, first.path, Argument(beside, name), probing):
            yield Port(name, (number,), spec.dtype, first.dims, optional=True)
            number += 1


def _goes_beside(call: Call, path: Path, argument: Argument, probing: _Probing) -> bool:
    with_it = Call((*call.arguments, argument))
    axes = ((path, 1), ((len(call.arguments),), 1))
    size = dict(call_leaves(call))[path].sizes[1]
    taken = isinstance(probing.run(with_it), Accepted)
    return (
        taken
        and isinstance(probing.run(resized(with_it, axes[1:], size + 1)), Refused)
        and isinstance(probing.run(resized(with_it, axes, size + 1)), Accepted)
    )


def _contract(proposal: Proposal, start: Start, explored: Explored, clues: Clues, device: str) -> Contract:
    call = start.call
    inputs = tuple(
        Port(input_name(path, _argument_name(clues.facts, call, path)), path, spec.dtype, explored.inputs[path])
        for path, spec in call_leaves(call)
    )
    evidence = [proposal.evidence] if proposal.evidence is not None else []
    names = {port.path: port.name for port in inputs}
    ids = [f"{names[path]} holds ids below {spec.below}" for path, spec in call_leaves(call) if spec.below > WORDS]
    evidence.append(Evidence(EvidenceKind.PROBED, "; ".join([f"{device} at {call}", *explored.notes, *ids])))
    return Contract(inputs, explored.outputs, call, start.result, tuple(evidence))


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
    for number, (path, spec) in enumerate(call_leaves(call)):
        below = ids_below(number, spec, seen.meetings) if spec.dtype in ("int64", "int32") else None
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
    given, dtypes = _float_kinds(call, spec, seen.result.dtype, probing)
    detail = f"{seen.device} at {call} and ranks 1, 2, 3, 4" + (f", as {', '.join(dtypes)}" if dtypes else "")
    name = _argument_name(clues.facts, call, path)
    return Contract(
        (Port(input_name(path, name), path, given, None),),
        (Port(output_name(()), (), given if dtypes else seen.result.dtype, None),),
        call,
        seen.result,
        (Evidence(EvidenceKind.PROBED, detail),),
    )


def _float_kinds(call: Call, spec: TensorSpec, result: str, probing: _Probing) -> tuple[str, tuple[str, ...]]:
    """The dtype of a port that takes every float and gives it back, with those that were tried; else its own alone."""
    if spec.dtype not in FLOATS or result != spec.dtype:
        return spec.dtype, ()
    (path, _), *_ = call_leaves(call)
    for dtype in FLOATS:
        seen = probing.run(call_with(call, {path: replace(spec, dtype=dtype, sample=None)}))
        same = isinstance(seen, Accepted) and isinstance(seen.result, TensorSpec) and seen.result.dtype == dtype
        if not same:
            return spec.dtype, ()
    return ANY_FLOAT, FLOATS
