"""Merging: whether the outputs of models that run in parallel can be merged into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from composecli.compose.compare import ConsumerPort, ProducerPort, format_dims
from composecli.compose.propagate import propagate
from composecli.core.blueprint import Branch, Merge, Parallel
from composecli.core.bridge import Bridge
from composecli.core.contract import Contract, Port
from composecli.core.dims import Fixed, Shape, unknown_reason
from composecli.core.findings import Finding, Side
from composecli.core.pytree import (
    Call,
    KeyPath,
    TensorSpec,
    Tree,
    call_leaves,
    describe_tree,
    keystr,
    leaves,
)
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

    `path` leads to it from the whole result. `port` describes it in the symbols of the first model;
    it is None if that is not known.
    """

    model: str
    handle: int
    path: KeyPath
    tree: Tree
    port: Port | None

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
    if len(first.required) != len(contract.required):
        return contract.outputs
    specs = [spec for _, spec in call_leaves(call)]
    pairs = list[tuple[ProducerPort, ConsumerPort]]()
    for fed, spec, port in zip(first.required, specs, contract.required, strict=True):
        pairs.append((ProducerPort("", fed, spec), ConsumerPort("", port)))
    return propagate(contract.outputs, tuple(pairs))


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
            return (_not_a_tensor(output, sides),)
    findings = list[Finding]()
    first, second = _tensor(one), _tensor(other)
    if first.dtype != second.dtype:
        title = "the merged outputs have other dtypes and are promoted to one"
        findings.append(Finding(Rule.MERGE_DTYPE_DIFFERS, title, sides))
    rank = len(first.sizes)
    if rank != len(second.sizes):
        title = f"rank differs: {spec.merge} needs outputs of equal rank"
        return (*findings, Finding(Rule.MERGE_SIZES_DIFFER, title, sides))
    if spec.merge in (Merge.CAT, Merge.STACK) and spec.merged_axis(rank) is None:
        title = f"--dim {spec.dim} is no axis of {rank}-axis outputs"
        return (*findings, Finding(Rule.MERGE_DIM_OUT_OF_RANGE, title, sides))
    return (*findings, *_size_findings(one, other, spec))


def _tensor(output: BranchOutput) -> TensorSpec:
    assert isinstance(output.tree, TensorSpec)
    return output.tree


def _not_a_tensor(output: BranchOutput, sides: Sides) -> Finding:
    ports = ", ".join(keystr(path) for path, _ in leaves(output.tree)) or "none"
    title = f"{output.model} returns {describe_tree(output.tree)} where a tensor is merged"
    notes = (f"outputs to select from: {ports}",)
    return Finding(Rule.MERGE_NEEDS_TENSORS, title, sides, notes=notes)


def _size_findings(one: BranchOutput, other: BranchOutput, spec: MergeSpec) -> list[Finding]:
    sides = (one.side, other.side)
    first, second = _tensor(one).sizes, _tensor(other).sizes
    independent = spec.independent_axis(len(first))
    findings = list[Finding]()
    conditions = list[str]()
    for axis, (size, other_size) in enumerate(zip(first, second, strict=True)):
        if axis == independent:
            continue
        if size != other_size:
            needs = f"and {spec.merge} needs them equal"
            title = f"axis {axis} differs: {size} and {other_size}, {needs}"
            advice = (_advice(spec, axis),)
            findings.append(Finding(Rule.MERGE_SIZES_DIFFER, title, sides, axis, advice))
            continue
        if one.port is not None and other.port is not None:
            conditions += _conditions(one.port.dims, other.port.dims, axis)
    if conditions:
        rule = Rule.FITS_ONLY_AT_SOME_SIZES
        if spec.strict:
            rule = Rule.NOT_AT_EVERY_SIZE
        title = f"compatible when {' and '.join(conditions)}"
        findings.append(Finding(rule, title, sides))
    return findings


def _advice(spec: MergeSpec, axis: int) -> str:
    if spec.merge is Merge.CAT:
        return f"cat along another axis leaves axis {axis} free: --dim {axis}"
    return f"--merge cat --dim {axis} needs no equal size there"


def _conditions(one: Shape | None, other: Shape | None, axis: int) -> list[str]:
    """Return the equation that the two dims of an axis must satisfy, if it is not an identity."""
    if one is None or other is None or len(one) != len(other):
        return []
    dims = (one[axis], other[axis])
    if any(unknown_reason(dim) is not None for dim in dims):
        return []
    left, right = map(str, dims)
    if left == right:
        return []
    return [f"{left} == {right}"]


def widened_ports(outputs: Outputs, spec: MergeSpec) -> dict[int, Port]:
    """Return the port that each narrower output has to match for the merge to work.

    If `float32[2, 5]` and `float32[2, 7]` are added, the first one has to become `float32[2, 7]`.
    Return nothing unless the outputs are tensors of equal rank that differ on a single axis, and
    that axis is not axis 0, the batch.
    """
    tensors = {n: out.tree for n, out in outputs.items() if isinstance(out.tree, TensorSpec)}
    if spec.merge is Merge.TUPLE or len(tensors) != len(outputs):
        return {}
    axis = _single_mismatch(list(tensors.values()), spec)
    if axis is None or axis == 0:
        return {}
    widest = max(tensors.values(), key=lambda tensor: tensor.sizes[axis])
    ports = dict[int, Port]()
    for number, tensor in tensors.items():
        if tensor.sizes[axis] < widest.sizes[axis]:
            sizes = list(tensor.sizes)
            sizes[axis] = widest.sizes[axis]
            ports[number] = Port("merge", (), widest.dtype, tuple(map(Fixed, sizes)))
    return ports


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
        sizes = {tensor.sizes[axis] for tensor in tensors}
        if axis != independent and len(sizes) > 1:
            mismatched.append(axis)
    if len(mismatched) != 1:
        return None
    return mismatched[0]


def merged_blueprint(outputs: Outputs, bridges: Mapping[int, Bridge], spec: MergeSpec) -> Parallel:
    """Return the blueprint that merges these outputs, each through its bridge if it has one."""
    branches = list[Branch]()
    for number, output in outputs.items():
        branches.append(Branch(output.handle, output.path, bridges.get(number, ())))
    return Parallel(tuple(branches), spec.merge, spec.dim)
