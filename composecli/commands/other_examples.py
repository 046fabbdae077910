"""Another example of a chain's input, if the first one does not fit and was our own choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from composecli.commands.chain import Seam, Upstream, pair_ports, start_chain
from composecli.commands.composition import at_own_rank
from composecli.commands.size_runs import is_affordable
from composecli.compose.compare import PortPairs, compare
from composecli.compose.fitting_sizes import fitting_sizes
from composecli.compose.wiring import Wiring, wire
from composecli.core.blueprint import Sequential
from composecli.core.contract import Contract, Port, output_names
from composecli.core.dims import Fixed
from composecli.core.findings import Finding
from composecli.core.input_spec import are_exact
from composecli.core.observations import Accepted
from composecli.core.pytree import (
    Call,
    Leaf,
    TensorSpec,
    Tree,
    call_leaves,
    leaves,
    replace_call_leaf,
)
from composecli.core.resizing import resize
from composecli.core.rules import Rule, Severity

_ABOUT_SIZES = (Rule.SIZE_DIFFERS, Rule.SIZE_OUT_OF_RANGE)
Rules = tuple[Rule, ...]
_ABOUT_TENSORS = (*_ABOUT_SIZES, Rule.RANK_DIFFERS, Rule.DTYPE_DIFFERS)


def with_other_example(seam: Seam, pairs: PortPairs, findings: Sequence[Finding]) -> Seam | None:
    """Return the seam with an example at which its ports fit; None if none is known to run.

    `Conv2d(3, 8, 3)` accepts `float32[1, 3, 7, 9]` from a model that turns `float32[7, 9, 3]` into
    it, even if that was tried with `float32[2, 3, 8]`. The findings at the new example state its
    conditions. Sizes and dtypes that the user stated are kept.
    """
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    rules = {finding.rule for finding in errors if not finding.rule.about_every_size}
    if not rules or not pairs:
        return None
    if rules <= set(_ABOUT_SIZES):
        moved = _at_fitting_sizes(seam, pairs)
        if moved is not None:
            return moved
    if rules <= set(_ABOUT_TENSORS):
        return _at_example_of_consumer(seam, pairs)
    return None


def _at_fitting_sizes(seam: Seam, pairs: PortPairs) -> Seam | None:
    """Return the seam with other sizes of the free dims of the chain's input."""
    upstream = seam.upstream
    if are_exact(seam.chain.session.options.inputs_of_first):
        return None
    changed = fitting_sizes(pairs, upstream.first.free_inputs, upstream.sizes)
    if not changed:
        return None
    call = resize(upstream.first, upstream.call, changed)
    if not is_affordable(call):
        return None
    blueprint = Sequential(upstream.stages)
    observation = seam.chain.session.run(blueprint, call)
    if not isinstance(observation, Accepted):
        return None
    moved = replace(upstream, call=call, result=observation.result)
    return _fitting_seam(seam, moved)


def _at_example_of_consumer(seam: Seam, pairs: PortPairs) -> Seam | None:
    """Return the seam with the consumer's own example as the input of the chain.

    An activation accepts and returns it, whatever its rank and dtype. A linear layer has a dtype
    and a width of its own, and accepts other ranks.
    """
    chain, upstream, contract = seam.chain, seam.upstream, seam.contract
    producer = chain.parts[seam.number - 1]
    if contract is None or len(pairs) != 1 or len(upstream.stages) != 1:
        return None
    if chain.session.options.inputs_of_first:
        return None
    if producer.facts.parameters:
        call = _at_rank_of(upstream.call, contract.example)
    else:
        call = _with_tensor_of(upstream.call, contract.example)
    if call is not None:
        moved = _at_call(seam, call)
        if moved is not None:
            return moved
    batch = _with_batch(upstream, contract)
    if batch is not None:
        return _at_batch(seam, batch)
    return None


def _at_batch(seam: Seam, call: Call) -> Seam | None:
    """Return the seam with a batch as the input of the producer, if the batch reaches the seam.

    A model that returns one number for each sample returns them for any rank.
    """
    observation = seam.chain.session.run(Sequential(seam.upstream.stages), call)
    if not isinstance(observation, Accepted):
        return None
    if _ranks(observation.result) == _ranks(seam.upstream.result):
        return None
    return _at_call(seam, call, _ABOUT_SIZES)


def _ranks(result: Tree) -> list[int]:
    """Return the number of axes of each tensor in a result."""
    return [len(spec.sizes) for _, spec in leaves(result)]


def _at_call(seam: Seam, call: Call, left: Rules = ()) -> Seam | None:
    """Return the seam with this input of the producer, if its contract for it fits there.

    Errors of the rules in `left` may be left: they are about sizes that can be changed.
    """
    chain, upstream = seam.chain, seam.upstream
    producer = chain.parts[seam.number - 1]
    observation = chain.session.run(Sequential(upstream.stages), call)
    if not isinstance(observation, Accepted):
        return None
    moved = replace(upstream, call=call, result=observation.result)
    if _fitting_seam(seam, _with_fixed_outputs(moved), left) is None:
        return None
    found = at_own_rank(chain.session.infer(producer, given=call))
    started = start_chain(producer, found)
    if started is None:
        return None
    fitting = _fitting_seam(seam, replace(started, call=call, result=observation.result), left)
    if fitting is not None:
        chain.contracts[seam.number - 1] = found
    return fitting


def _with_fixed_outputs(upstream: Upstream) -> Upstream:
    """Return the chain with the sizes and dtypes of its result as those of its outputs."""
    names = output_names(upstream.result)
    outputs = list[Port]()
    for path, spec in leaves(upstream.result):
        dims = tuple(map(Fixed, spec.sizes))
        outputs.append(Port(names[path], path, spec.dtype, dims))
    return replace(upstream, outputs=tuple(outputs))


def _with_tensor_of(call: Call, other: Call) -> Call | None:
    """Return the call with the tensor of the other; None if one of them has not exactly one."""
    own, others = _only_leaf(call), _only_leaf(other)
    if own is None or others is None:
        return None
    (path, spec), (_, wanted) = own, others
    if (spec.dtype, spec.sizes) == (wanted.dtype, wanted.sizes):
        return None
    tensor = TensorSpec(wanted.dtype, wanted.sizes, wanted.below)
    return replace_call_leaf(call, {path: tensor})


def _at_rank_of(call: Call, other: Call) -> Call | None:
    """Return the call with the sizes of the other but for its last one; None at equal ranks."""
    own, others = _only_leaf(call), _only_leaf(other)
    if own is None or others is None:
        return None
    (path, spec), (_, wanted) = own, others
    if len(spec.sizes) == len(wanted.sizes) or not spec.sizes or not wanted.sizes:
        return None
    sizes = (*wanted.sizes[:-1], spec.sizes[-1])
    tensor = TensorSpec(spec.dtype, sizes, spec.below)
    return replace_call_leaf(call, {path: tensor})


def _with_batch(upstream: Upstream, contract: Contract) -> Call | None:
    """Return the call with a batch of samples, if the consumer takes one and gets a sample."""
    own, others = _only_leaf(upstream.call), _only_leaf(contract.example)
    if own is None or others is None:
        return None
    (path, spec), (_, wanted) = own, others
    results = list(leaves(upstream.result))
    if len(results) != 1 or len(results[0][1].sizes) + 1 != len(wanted.sizes):
        return None
    sizes = (wanted.sizes[0], *spec.sizes)
    tensor = TensorSpec(spec.dtype, sizes, spec.below)
    return replace_call_leaf(upstream.call, {path: tensor})


def _only_leaf(call: Call) -> Leaf | None:
    """Return the tensor of a call with its path; None if it has not exactly one."""
    found = list(call_leaves(call))
    if len(found) == 1:
        return found[0]
    return None


def _fitting_seam(seam: Seam, upstream: Upstream, left: Rules = ()) -> Seam | None:
    """Return the seam behind another example; None if its ports do not fit there either.

    Errors of the rules in `left` may be left.
    """
    part = seam.chain.parts[seam.number]
    selected = seam.selected
    wiring = wire(upstream.result, part.facts.arguments, selected, seam.edge)
    if not isinstance(wiring, Wiring):
        return None
    moved = replace(seam, upstream=upstream, wiring=wiring)
    for producer, consumer in pair_ports(moved):
        findings = compare(producer, consumer)
        errors = [finding for finding in findings if finding.severity is Severity.ERROR]
        if any(finding.rule not in left for finding in errors):
            return None
    return moved
