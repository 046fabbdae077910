"""A chain of models: the part that leads up to a seam, and the ports that meet there."""

from __future__ import annotations

from dataclasses import dataclass, field

from composecli.commands.composition import InferenceResult, contract_of
from composecli.commands.opened_model import OpenedModel, OpenedModels
from composecli.commands.requests import CheckRequest, Selection
from composecli.commands.results import SeamReport
from composecli.commands.seam_report import Findings, Rows, seam_report
from composecli.commands.session import Session
from composecli.commands.size_runs import SizeRuns
from composecli.commands.stated_inputs import argument_names
from composecli.compose.compare import (
    ConsumerPort,
    PortPair,
    PortPairs,
    ProducerPort,
)
from composecli.compose.wiring import Edge, Wiring
from composecli.core.blueprint import Sequential, Stage
from composecli.core.contract import Contract, Port
from composecli.core.contract_at_rank import at_rank_of, with_one_axis
from composecli.core.fit import Fit
from composecli.core.observations import Detail, Observation
from composecli.core.pytree import (
    Call,
    KeyPath,
    Tree,
    get_path,
    leaves,
)
from composecli.core.resizing import ranges_by_name, sizes_by_name
from composecli.inference import NotFound

Ports = tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Upstream:
    """The part of a chain that leads up to a seam.

    `result` and `outputs` are those of its last stage, when the first one, which has the contract
    `first`, gets `call`.
    """

    first: Contract
    stages: tuple[Stage, ...]
    call: Call
    result: Tree
    outputs: Ports

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes of the free dims of the input in the example, by name."""
        return sizes_by_name(self.first, self.call)


@dataclass
class Chain:
    """The models of a chain, with the contracts and the seams that are known so far."""

    request: CheckRequest
    session: Session
    parts: OpenedModels
    contracts: list[InferenceResult] = field(default_factory=list)
    seams: list[SeamReport] = field(default_factory=list)
    bridged: list[int] = field(default_factory=list)
    selected: set[Selection] = field(default_factory=set)

    def contract(self, number: int) -> Contract | None:
        """Return the contract of a model; None if it was not found."""
        return contract_of(self.contracts[number])

    def infer(self, number: int, given: Call | None = None) -> Contract | None:
        """Infer the contract of the next model, and return it if it is found."""
        part = self.parts[number]
        stated = self.session.stated_input(part, number + 1)
        found = self.session.infer(part, stated=stated, given=given)
        self.contracts.append(found)
        return self.contract(number)

    def report(self, edge: Edge, rows: Rows, findings: Findings, fit: Fit | None = None) -> None:
        """Add the report of the next seam."""
        seam = seam_report(edge.producer, edge.consumer, rows, findings, fit)
        self.seams.append(seam)


@dataclass(frozen=True, slots=True)
class Seam:
    """One seam of a chain with the wiring of its ports.

    `number` is that of the consumer, and `selected` the path of the part of the result that is
    wired. `searched`: other sizes of the input were looked for already. `is_flattened`: what a
    consumer of any rank is given has a single axis for its rest, as behind a flatten.
    """

    chain: Chain
    number: int
    upstream: Upstream
    selected: KeyPath
    wiring: Wiring
    edge: Edge
    searched: bool = False
    is_flattened: bool = False

    @property
    def contract(self) -> Contract | None:
        """The contract of the consumer, at the rank of the tensor that it is given."""
        contract = self.chain.contract(self.number)
        if contract is None:
            return None
        if self.is_flattened:
            return with_one_axis(contract)
        return at_rank_of(contract, self.wiring.call)

    @property
    def stage(self) -> Stage:
        """The consumer, fed without a bridge."""
        consumer = self.chain.parts[self.number]
        return Stage(consumer.handle, self.wiring.feeds, self.edge.settings)

    def through(self, stage: Stage) -> Sequential:
        """Return everything up to this consumer, which `stage` is."""
        return Sequential((*self.upstream.stages, stage))

    def runs_beside(self, observation: Observation) -> SizeRuns:
        """Return runs of everything up to this consumer at other sizes of the input.

        `observation` is that of the run at the example, without a bridge.
        """
        upstream = self.upstream
        blueprint = self.through(self.stage)
        ranges = ranges_by_name(upstream.first, upstream.call)
        runs = SizeRuns(self.chain.session, blueprint, upstream.first, upstream.call, ranges)
        runs.observed[upstream.call, Detail.REASON] = observation
        return runs

    def run(self, stage: Stage) -> Observation:
        """Run everything up to this consumer."""
        self.chain.session.progress(f"running {self.edge.consumer} behind {self.edge.producer}")
        return self.chain.session.run(self.through(stage), self.upstream.call)


def start_chain(part: OpenedModel, found: InferenceResult) -> Upstream | None:
    """Return the chain that consists of one model; None if no call is known that it accepts."""
    if isinstance(found, NotFound):
        return None
    contract = found.contract
    stages = (Stage(part.handle),)
    return Upstream(contract, stages, contract.example, contract.result, contract.outputs)


def _positions(seam: Seam, contract: Contract) -> dict[str, int]:
    """Return the place of each argument in the example of the consumer, by name."""
    facts = seam.chain.parts[seam.number].facts
    names = argument_names(contract.example, facts)
    return {name: number for number, name in enumerate(names) if name}


def pair_ports(seam: Seam) -> PortPairs:
    """Pair each tensor that is fed with the input that it goes to."""
    contract, upstream = seam.contract, seam.upstream
    if contract is None:
        return ()
    inputs = {port.path: port for port in contract.inputs}
    outputs = {port.path: port for port in upstream.outputs}
    positions = _positions(seam, contract)
    pairs = list[PortPair]()
    for number, feed in enumerate(seam.wiring.feeds):
        position = number
        if feed.name:
            position = positions.get(feed.name, number)
        part = get_path(upstream.result, feed.path)
        for path, spec in leaves(part):
            consumer = inputs.get((position, *path))
            producer = outputs.get((*feed.path, *path))
            if consumer is None or producer is None:
                continue
            output_port = ProducerPort(
                seam.edge.producer,
                producer,
                spec,
                upstream.first.free_inputs,
                upstream.sizes,
                upstream.first.where,
            )
            input_port = ConsumerPort(seam.edge.consumer, consumer, contract.where)
            pairs.append((output_port, input_port))
    return tuple(pairs)
