"""Merging: whether the outputs of models that run in parallel can be merged into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from composecli.compose.compare import (
    ConsumerPort,
    PortPair,
    PortPairs,
    ProducerPort,
    conditional_finding,
    format_dims,
    values_finding,
)
from composecli.compose.conditions import Condition, solve_equality
from composecli.compose.propagate import propagate
from composecli.core.blueprint import Branch, Merge, Parallel, Settings
from composecli.core.bridge import Bridge
from composecli.core.contract import Contract, Port
from composecli.core.dims import (
    Dim,
    Fixed,
    Free,
    Shape,
    as_expr,
    follows_values,
    free_dims,
    unknown_reason,
)
from composecli.core.findings import Finding, Side
from composecli.core.pytree import (
    Call,
    KeyPath,
    TensorSpec,
    Tree,
    call_leaves,
    describe_tree,
    leaves,
    port_name,
)
from composecli.core.resizing import free_dims_of, sizes_by_name
from composecli.core.rules import Rule

Sides = tuple[Side, Side]


@dataclass(frozen=True, slots=True)
class MergeSpec:
    """How outputs are merged: the operation, the axis of cat and stack, and for which sizes.

    `strict` requires that the outputs fit at every size that the models accept, and not only at the
    size of the example.
    """

    merge: Merge
    dim: int = 1
    strict: bool = False

    def merged_axis(self, rank: int) -> int | None:
        """Return the axis that `dim` names, counted from 0; None if it is out of range.

        `rank` is that of the outputs. The result of stack has one axis more: for outputs of rank 2,
        `dim` -1 is axis 1 of cat and axis 2 of stack.
        """
        axes = rank
        if self.merge is Merge.STACK:
            axes += 1
        if not -axes <= self.dim < axes:
            return None
        return self.dim % axes

    def independent_axis(self, rank: int) -> int | None:
        """Return the axis on which the outputs may differ in size: that of cat; None otherwise."""
        if self.merge is not Merge.CAT:
            return None
        return self.merged_axis(rank)


@dataclass(frozen=True, slots=True)
class BranchOutput:
    """The part of one model's result that is merged.

    `path` leads to it from the whole result. `port` describes it in the symbols of the first model,
    whose free dims are `ranges`; it is None if that is not known.
    """

    model: str
    handle: int
    path: KeyPath
    tree: Tree
    port: Port | None
    settings: Settings = ()
    ranges: tuple[Free, ...] = ()

    @property
    def side(self) -> Side:
        """The output as findings show it."""
        if not isinstance(self.tree, TensorSpec):
            return Side(self.model, describe_tree(self.tree))
        sizes = tuple(map(str, self.tree.sizes))
        if self.port is None:
            return Side(self.model, "output 0", self.tree.dtype, sizes)
        dims = format_dims(self.port.dims) or sizes
        return Side(self.model, self.port.name, self.tree.dtype, dims)


Outputs = Mapping[int, BranchOutput]


def outputs_in_symbols_of(
    first: Contract | None, contract: Contract, call: Call
) -> tuple[Port, ...]:
    """Return the outputs of a model in the symbols of the first model, which gets the same call.

    If the first model accepts `float32[N, 10]`, and this one maps `float32[B, D]` to
    `float32[B, D]`, its output is `float32[N, 10]`.
    """
    if first is None or contract is first:
        return contract.outputs
    pairs = shared_inputs(first, contract, call)
    if len(pairs) != len(first.required):
        return contract.outputs
    return propagate(contract.outputs, pairs)


def shared_inputs(first: Contract, contract: Contract, call: Call) -> PortPairs:
    """Return each input of the first model with that of another one, which gets the same tensor.

    There are none if they do not take the same number of tensors.
    """
    specs = [spec for _, spec in call_leaves(call)]
    if not len(first.required) == len(contract.required) == len(specs):
        return ()
    ranges = free_dims_of(first, call)
    sizes = sizes_by_name(first, call)
    pairs = list[PortPair]()
    for fed, spec, port in zip(first.required, specs, contract.required, strict=True):
        producer = ProducerPort("", fed, spec, ranges, sizes, first.where)
        consumer = ConsumerPort("", port, contract.where)
        pairs.append((producer, consumer))
    return tuple(pairs)


def merge_findings(one: BranchOutput, other: BranchOutput, spec: MergeSpec) -> tuple[Finding, ...]:
    """Return every reason why two outputs cannot be merged, or only at some sizes.

    `float32[N, 5]` and `float32[N, 7]` differ on axis 1: that is an error for add, mean and stack,
    but not for cat along axis 1.
    """
    if spec.merge is Merge.TUPLE:
        return ()
    sides = (one.side, other.side)
    for output in (one, other):
        if not isinstance(output.tree, TensorSpec):
            finding = _not_a_tensor(output, sides)
            return (finding,)
    findings = list[Finding]()
    first = _tensor(one)
    second = _tensor(other)
    if first.dtype != second.dtype:
        title = "the merged outputs have different dtypes and are promoted to one"
        finding = Finding(Rule.MERGE_DTYPE_DIFFERS, title, sides)
        findings.append(finding)
    rank = len(first.sizes)
    if rank != len(second.sizes):
        title = f"rank differs: {spec.merge} needs outputs of equal rank"
        finding = Finding(Rule.MERGE_SIZES_DIFFER, title, sides)
        return (*findings, finding)
    needs_axis = spec.merge in (Merge.CAT, Merge.STACK)
    if needs_axis and spec.merged_axis(rank) is None:
        title = f"--dim {spec.dim} is not an axis of outputs with {rank} axes"
        finding = Finding(Rule.MERGE_DIM_OUT_OF_RANGE, title, sides)
        return (*findings, finding)
    findings.extend(_size_findings(one, other, spec))
    return tuple(findings)


def _tensor(output: BranchOutput) -> TensorSpec:
    """Return the tensor of an output that is known to be one."""
    assert isinstance(output.tree, TensorSpec)
    return output.tree


def _not_a_tensor(output: BranchOutput, sides: Sides) -> Finding:
    """Return the finding about a container, with the tensors in it to select from."""
    names = [port_name((*output.path, *path)) for path, _ in leaves(output.tree)]
    ports = ", ".join(names) or "none"
    returned = describe_tree(output.tree)
    title = f"{output.model} returns {returned} where the merge needs a tensor"
    notes = (f"outputs to select from: {ports}",)
    return Finding(Rule.MERGE_NEEDS_TENSORS, title, sides, notes=notes)


def _size_findings(one: BranchOutput, other: BranchOutput, spec: MergeSpec) -> list[Finding]:
    """Return a finding for each axis that differs, and one for all conditions."""
    sides = (one.side, other.side)
    first = _tensor(one).sizes
    second = _tensor(other).sizes
    independent = spec.independent_axis(len(first))
    findings = list[Finding]()
    conditions = list[Condition]()
    axes = zip(first, second, strict=True)
    for axis, (size, other_size) in enumerate(axes):
        if axis == independent:
            continue
        from_values = _from_values(axis, one, other)
        if from_values is not None:
            findings.append(values_finding(axis, from_values, sides))
        elif size != other_size:
            needs = f"and {spec.merge} needs them equal"
            title = f"axis {axis} differs: {size} and {other_size}, {needs}"
            advice = (_advice(spec, axis),)
            finding = Finding(Rule.MERGE_SIZES_DIFFER, title, sides, axis, advice)
            findings.append(finding)
        elif one.port is not None and other.port is not None:
            conditions += _conditions(one.port.dims, other.port.dims, axis, one.ranges)
    if conditions:
        findings.append(conditional_finding(conditions, sides, strict=spec.strict))
    return findings


def _from_values(axis: int, *outputs: BranchOutput) -> Dim | None:
    """Return the dim of an axis that follows the values of the input; None if none does."""
    for output in outputs:
        if output.port is None or output.port.dims is None:
            continue
        dim = output.port.dims[axis]
        if follows_values(dim):
            return dim
    return None


def _advice(spec: MergeSpec, axis: int) -> str:
    """Return the `--dim` of cat with which the sizes of this axis may differ."""
    if spec.merge is Merge.CAT:
        return f"cat along axis {axis} does not need equal sizes there: --dim {axis}"
    return f"--merge cat --dim {axis} does not need equal sizes there"


def _conditions(
    one: Shape | None, other: Shape | None, axis: int, ranges: tuple[Free, ...]
) -> list[Condition]:
    """Return the equation that the two dims of an axis must satisfy, if it is not an identity."""
    if one is None or other is None or len(one) != len(other):
        return []
    left, right = as_expr(one[axis]), as_expr(other[axis])
    if left is None or right is None or left == right:
        return []
    own = {free.name: free for free in (*free_dims((one[axis], other[axis])), *ranges)}
    condition = solve_equality(left, right, own)
    if condition is None:
        return []
    return [condition]


def merge_conditions(
    one: BranchOutput, other: BranchOutput, spec: MergeSpec
) -> tuple[list[Condition], tuple[str, ...]]:
    """Return the conditions under which outputs merge, and the axes that are not decided."""
    if spec.merge is Merge.TUPLE:
        return [], ()
    if one.port is None or other.port is None:
        return [], ("an output is not known",)
    left, right = one.port.dims or (), other.port.dims or ()
    if len(left) != len(right) or not left:
        return [], ("the dims of an output are not known",)
    independent = spec.independent_axis(len(left))
    conditions = list[Condition]()
    undecided = list[str]()
    for axis, dims in enumerate(zip(left, right, strict=True)):
        if axis == independent:
            continue
        reasons = [reason for dim in dims if (reason := unknown_reason(dim)) is not None]
        undecided += reasons[:1]
        conditions += _conditions(left, right, axis, one.ranges)
    return conditions, tuple(undecided)


def widened_ports(outputs: Outputs, spec: MergeSpec) -> dict[int, Port]:
    """Return the port that each narrower output has to match for the merge to work.

    If `float32[2, 5]` and `float32[2, 7]` are added, the first one has to become `float32[2, 7]`.
    Return nothing unless the outputs are tensors of equal rank that differ on a single axis, and
    that axis is not axis 0, the batch.
    """
    tensors = dict[int, TensorSpec]()
    for number, output in outputs.items():
        if isinstance(output.tree, TensorSpec):
            tensors[number] = output.tree
    if spec.merge is Merge.TUPLE or len(tensors) != len(outputs):
        return {}
    specs = list(tensors.values())
    axis = _single_mismatch(specs, spec)
    if axis is None or axis == 0:
        return {}
    widest = max(specs, key=lambda tensor: tensor.sizes[axis])
    width = widest.sizes[axis]
    ports = dict[int, Port]()
    for number, tensor in tensors.items():
        if tensor.sizes[axis] >= width:
            continue
        sizes = list(tensor.sizes)
        sizes[axis] = width
        dims = tuple(map(Fixed, sizes))
        ports[number] = Port("merge", (), widest.dtype, dims)
    return ports


def pairs_behind_bridges(
    outputs: Outputs, spec: MergeSpec, ranges: tuple[Free, ...]
) -> dict[int, PortPair]:
    """Return each output whose port is known with the port that it must match behind the bridges.

    Every output must have the width of the widest one in the example, that one too:
    `float32[N, T]` fits `float32[N, 7]` at one size of `T` only.
    """
    tensors = {number: _tensor(output) for number, output in outputs.items()}
    specs = list(tensors.values())
    axis = _single_mismatch(specs, spec)
    assert axis is not None
    width = max(tensor.sizes[axis] for tensor in specs)
    pairs = dict[int, PortPair]()
    for number, output in outputs.items():
        if output.port is None:
            continue
        producer = ProducerPort(output.model, output.port, tensors[number], ranges)
        dims = list(producer.dims)
        dims[axis] = Fixed(width)
        needed = Port("merge", (), tensors[number].dtype, tuple(dims))
        pairs[number] = (producer, ConsumerPort("the merge", needed))
    return pairs


def _single_mismatch(tensors: list[TensorSpec], spec: MergeSpec) -> int | None:
    """Return the only axis on which sizes must be equal and are not.

    Return None if there is no such axis, if there are several, or if the ranks differ.
    """
    ranks = {len(tensor.sizes) for tensor in tensors}
    if len(ranks) != 1:
        return None
    rank = ranks.pop()
    independent = spec.independent_axis(rank)
    mismatched = list[int]()
    for axis in range(rank):
        if axis == independent:
            continue
        sizes = {tensor.sizes[axis] for tensor in tensors}
        if len(sizes) > 1:
            mismatched.append(axis)
    if len(mismatched) != 1:
        return None
    return mismatched[0]


def merged_blueprint(outputs: Outputs, bridges: Mapping[int, Bridge], spec: MergeSpec) -> Parallel:
    """Return the blueprint that merges these outputs, each through its bridge if it has one."""
    branches = list[Branch]()
    for number, output in outputs.items():
        bridge = bridges.get(number, ())
        branch = Branch(output.handle, output.path, bridge, output.settings)
        branches.append(branch)
    return Parallel(tuple(branches), spec.merge, spec.dim)
