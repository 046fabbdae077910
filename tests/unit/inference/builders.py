"""Models, facts and observations that tests of inference are written with."""

from __future__ import annotations

from collections.abc import Callable

from composecli.core.facts import ArgumentFact, LayerFact, ModelFacts, NamedSizes, Setting
from composecli.core.observations import Accepted, Detail, Observation, Operand, Rejected
from composecli.core.pytree import Argument, Call, Tree, call_leaves
from composecli.inference.axis_groups import Example
from composecli.inference.candidates import Candidate
from composecli.inference.prober import Budget, Prober
from tests.parsing import spec

REJECTED = Rejected(0, "RuntimeError", "no", "cpu")

# Return the result of a call, or None to reject it.
Forward = Callable[[Call], Tree | None]


def facts(
    *layers: LayerFact,
    arguments: tuple[ArgumentFact, ...] = (ArgumentFact("x", "Tensor", required=True),),
    settings: tuple[Setting, ...] = (),
    parameters: int = 0,
) -> ModelFacts:
    """Return the facts of a float32 model with these layers."""
    return ModelFacts(
        "M", arguments, "eval", layers, parameters, parameters, 0, ("float32",), (), (),
        settings=settings,
    )  # fmt: skip


def layer(class_name: str, weight: tuple[int, ...], *, name: str = "weight") -> LayerFact:
    """Return a layer with one float32 parameter."""
    return LayerFact("layer", class_name, (NamedSizes(name, "float32", weight),))


def call(*texts: str) -> Call:
    """Return a call with positional tensors: `call("float32[2, 5]")`."""
    return Call(tuple(Argument(spec(text)) for text in texts))


def candidate(*texts: str) -> Candidate:
    """Return a candidate with positional tensors."""
    return Candidate(call(*texts))


def sizes(tried: Call) -> tuple[int, ...]:
    """Return the sizes of the only tensor of a call."""
    ((_, tensor),) = call_leaves(tried)
    return tensor.sizes


def accepted(*texts: str) -> Accepted:
    """Return an accepted forward with one result for each stage."""
    return Accepted(tuple(spec(text) for text in texts), "cpu")


def rejected(
    op: str | None, *operands: tuple[str, tuple[int, ...]], numbers: tuple[int, ...] = ()
) -> Rejected:
    """Return a forward that failed in `op`, with operands as text and the inputs they came from."""
    found = tuple(Operand(spec(text), inputs) for text, inputs in operands)
    return Rejected(0, "RuntimeError", "no", "cpu", op=op, operands=found, numbers=numbers, ops=3)


def observe(forward: Forward) -> Callable[[Call], Observation]:
    """Return a probe of a model that is written as a function."""

    def probe(tried: Call) -> Observation:
        result = forward(tried)
        if result is None:
            return REJECTED
        return Accepted((result,), "cpu")

    return probe


def example(tried: Call, forward: Forward) -> Example:
    """Return the example of a call that the model accepts."""
    result = forward(tried)
    assert result is not None
    return Example(tried, result, frozenset(), {})


def prober(forward: Forward, budget: Budget | None = None) -> Prober:
    """Return a prober of a model that is written as a function."""
    probe = observe(forward)

    def ask(tried: Call, detail: Detail) -> Observation:
        return probe(tried)

    return Prober(ask, budget or Budget())
