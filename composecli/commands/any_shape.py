"""A seam behind a model that takes tensors of any shape: the consumer alone limits its input.

No symbol stands for the sizes of such an input, so that the condition is the port of the consumer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from composecli.commands.size_runs import SizeRuns
from composecli.compose.compare import PortPair
from composecli.core.findings import Finding
from composecli.core.fit import Fit, Holds
from composecli.core.observations import Detail, Rejected, RejectionKind
from composecli.core.pytree import Call, TensorSpec, call_leaves
from composecli.core.rules import Rule


@dataclass(frozen=True, slots=True)
class AnyShapeFit:
    """At which inputs a seam holds, and what is said of that."""

    fit: Fit
    findings: tuple[Finding, ...] = ()


def fit_of_any_shape(pair: PortPair, runs: SizeRuns, fit: Fit, *, strict: bool) -> AnyShapeFit:
    """Return when a seam holds whose first model gives whatever shape it is given.

    It is `unknown` unless an input of another shape was run that the consumer refuses.
    """
    producer, consumer = pair
    refused = _refused_shape(runs)
    if refused is None:
        return AnyShapeFit(fit)
    notes = (f"the input may have any shape; it fails at {refused}",)
    rule, words = Rule.FITS_ONLY_AT_SOME_SIZES, "compatible when"
    if strict:
        rule, words = Rule.NOT_AT_EVERY_SIZE, "fits only when"
    title = f"{words} the input is one that {consumer.model} takes, such as {consumer.side.text}"
    finding = Finding(rule, title, (producer.side, consumer.side), notes=notes)
    return AnyShapeFit(replace(fit, holds=Holds.SOMETIMES), (finding,))


def _refused_shape(runs: SizeRuns) -> TensorSpec | None:
    """Return an input of another shape that the last model refuses when the chain is run."""
    inputs = [spec for _, spec in call_leaves(runs.call)]
    if len(inputs) != 1 or len(runs.call.arguments) != 1:
        return None
    for sizes in _other_shapes(inputs[0].sizes):
        spec = replace(inputs[0], sizes=sizes)
        argument = replace(runs.call.arguments[0], value=spec)
        observed = runs.session.run(runs.blueprint, Call((argument,)), detail=Detail.OUTCOME)
        if isinstance(observed, Rejected) and _is_refusal(observed):
            return spec
    return None


def _is_refusal(rejected: Rejected) -> bool:
    """Return whether the consumer, and not the producer, raised an error."""
    return rejected.kind is RejectionKind.ERROR and rejected.stage > 0


def _other_shapes(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield shapes that are larger by one on an axis, the last one first, then of other ranks."""
    for axis in reversed(range(len(sizes))):
        larger = list(sizes)
        larger[axis] += 1
        yield tuple(larger)
    if sizes:
        yield tuple(sizes[1:])
    yield (1, *sizes)
