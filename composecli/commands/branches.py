"""The models of a merge: the input that they share, and the output of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from composecli.commands.composition import Contracts, InferenceResult, contract_of, no_such_output
from composecli.commands.merging_sizes import Differences, MergingSizes
from composecli.commands.opened_model import OpenedModels
from composecli.commands.requests import CheckRequest, Selection
from composecli.commands.session import Session
from composecli.commands.shared_call import SharedCall, run_each
from composecli.commands.size_runs import Sizes
from composecli.compose.merge import (
    BranchOutput,
    MergeSpec,
    merge_conditions,
    merged_blueprint,
    outputs_in_symbols_of,
)
from composecli.core.bridge import Bridge
from composecli.core.contract import Port
from composecli.core.dims import Free
from composecli.core.findings import Finding
from composecli.core.input_spec import are_exact
from composecli.core.observations import Observation
from composecli.core.pytree import Call, KeyPath, TensorSpec, Tree, find_path, get_path
from composecli.core.resizing import free_dims_of, ranges_by_name, resize, sizes_by_name

# By the number of the model, from 0.
Bridges = dict[int, Bridge]


@dataclass(frozen=True)
class Branches:
    """Models in parallel, and the call that they share."""

    request: CheckRequest
    session: Session
    parts: OpenedModels
    contracts: Contracts
    shared: SharedCall

    @cached_property
    def outputs(self) -> dict[int, BranchOutput]:
        """The output of each model that accepted the shared call, by its number."""
        outputs = dict[int, BranchOutput]()
        selections = self.request.options.selections
        for number, result in self.shared.results.items():
            path = _selected_path(selections, number, result)
            port = _output_port(self.contracts, number, path, self.shared.call)
            part = self.parts[number]
            tree = get_path(result, path)
            settings = self.session.settings(part, number + 1)
            ranges = self.ranges
            outputs[number] = BranchOutput(
                part.name, part.handle, path, tree, port, settings, ranges
            )
        return outputs

    @property
    def ranges(self) -> tuple[Free, ...]:
        """The free dims of the input of the first model."""
        return _ranges(self.contracts[0], self.shared.call)

    @property
    def merge(self) -> MergeSpec:
        """How the outputs are merged at the example; whether every size fits is told later."""
        return MergeSpec(self.request.merge, self.request.dim)

    @property
    def has_stated_sizes(self) -> bool:
        """Whether the sizes of the shared input were stated: they are judged as they are."""
        return are_exact(self.request.options.inputs_of_first)

    def run(self, bridges: Bridges) -> Observation:
        """Run the merge of all outputs."""
        blueprint = merged_blueprint(self.outputs, bridges, self.merge)
        return self.session.run(blueprint, self.shared.call)


def at_merging_sizes(branches: Branches) -> Branches:
    """Return the branches at sizes of their input at which the outputs merge, if any are found.

    Sizes that were stated are judged as they are.
    """
    first = contract_of(branches.contracts[0])
    if first is None or branches.has_stated_sizes or not _may_merge_elsewhere(branches):
        return branches
    call = branches.shared.call
    ranges = ranges_by_name(first, call)

    def at(sizes: Sizes) -> Branches:
        changed = resize(first, call, sizes)
        shared = run_each(branches.session, branches.parts, changed)
        return replace(branches, shared=shared)

    search = MergingSizes(lambda sizes: _differences(at(sizes)), ranges)
    found = search.find(sizes_by_name(first, call))
    return branches if found is None else at(found)


def _may_merge_elsewhere(branches: Branches) -> bool:
    """Return whether outputs differ at the shared call, and no dim says that they always do."""
    if not _differences(branches):
        return False
    first, *others = branches.outputs.values()
    for other in others:
        conditions, _ = merge_conditions(first, other, branches.merge)
        if any(condition.is_never_met for condition in conditions):
            return False
    return True


def _differences(branches: Branches) -> Differences | None:
    """Return how much the outputs differ, by axis; None if they are not tensors of one rank."""
    if branches.shared.refusals:
        return None
    trees = [output.tree for output in branches.outputs.values()]
    shapes = [tree.sizes for tree in trees if isinstance(tree, TensorSpec)]
    if len(shapes) < len(trees) or len({len(shape) for shape in shapes}) > 1:
        return None
    first, *others = shapes
    independent = branches.merge.independent_axis(len(first))
    differences = dict[int, int]()
    for other in others:
        for axis, (one, another) in enumerate(zip(first, other, strict=True)):
            if axis != independent and one != another:
                differences.setdefault(axis, one - another)
    return differences


def missing_selection(
    selections: tuple[Selection, ...], results: dict[int, Tree], parts: OpenedModels
) -> Finding | None:
    """Return the finding that `--select` names an output that the models do not have."""
    for selection in selections:
        meant = [number for number in results if selection.model in (None, number + 1)]
        paths = (find_path(results[number], selection.port) for number in meant)
        if any(path is not None for path in paths):
            continue
        candidates = meant or list(results)
        if candidates:
            number = candidates[0]
            return no_such_output(parts[number].name, selection.port, results[number])
    return None


def _selected_path(selections: tuple[Selection, ...], number: int, result: Tree) -> KeyPath:
    """Return the path of the first selection that this result has; else that of the result."""
    for selection in selections:
        if selection.model not in (None, number + 1):
            continue
        path = find_path(result, selection.port)
        if path is not None:
            return path
    return ()


def _output_port(contracts: Contracts, number: int, path: KeyPath, call: Call) -> Port | None:
    """Return the port of a model's output at a path, in the symbols of the first model."""
    contract = contract_of(contracts[number])
    if contract is None:
        return None
    ports = outputs_in_symbols_of(contract_of(contracts[0]), contract, call)
    for port in ports:
        if port.path == path:
            return port
    return None


def _ranges(found: InferenceResult, call: Call) -> tuple[Free, ...]:
    """Return the free dims of the first model's input."""
    contract = contract_of(found)
    if contract is None:
        return ()
    return free_dims_of(contract, call)
