"""Recognize models that return a tensor of any rank at its own sizes, such as activations."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.contract import (
    Contract,
    Evidence,
    EvidenceKind,
    Port,
    input_name,
    output_name,
)
from composecli.core.dtypes import ANY_FLOAT, FLOATS
from composecli.core.observations import Accepted, Observation, Untried
from composecli.core.pytree import Call, TensorSpec, call_leaves, replace_call_leaf
from composecli.inference.hints import Hints, argument_name
from composecli.inference.prober import Prober

# One call of each rank that is tried.
_SIZES: tuple[tuple[int, ...], ...] = ((4,), (2, 4), (2, 3, 4), (2, 3, 4, 5))


def shape_preserving_contract(
    call: Call, accepted: Accepted, hints: Hints, prober: Prober
) -> Contract | None:
    """Return a contract without dims, if the model returns a tensor of any rank at its sizes.

    `ReLU()` has the contract `float[*] -> float[*]`. None for a model with parameters or several
    inputs.
    """
    if hints.facts.parameters or hints.stated is not None:
        return None
    if len(call.arguments) != 1:
        return None
    inputs = list(call_leaves(call))
    if len(inputs) != 1:
        return None
    path, spec = inputs[0]
    if not _keeps_sizes_of_every_rank(call, accepted, prober):
        return None
    assert isinstance(accepted.result, TensorSpec)
    detail = f"{accepted.device} at {call} and ranks 1, 2, 3, 4"
    input_dtype, output_dtype = spec.dtype, accepted.result.dtype
    if _keeps_every_float_dtype(call, output_dtype, prober):
        input_dtype = output_dtype = ANY_FLOAT
        float_names = ", ".join(FLOATS)
        detail += f", as {float_names}"
    argument = argument_name(hints.facts, call, path)
    name = input_name(path, argument)
    input_port = Port(name, path, input_dtype, None)
    output_port = Port(output_name(()), (), output_dtype, None)
    evidence = Evidence(EvidenceKind.PROBED, detail)
    return Contract((input_port,), (output_port,), call, accepted.result, (evidence,))


def _keeps_sizes_of_every_rank(call: Call, accepted: Accepted, prober: Prober) -> bool:
    """Return whether the model accepts each rank and returns a tensor of the input's sizes."""
    ((path, spec),) = call_leaves(call)
    # Results are compared only after all ranks were accepted: most models reject a rank.
    results = [(spec.sizes, accepted.result)]
    for sizes in _SIZES:
        changed = replace(spec, sizes=sizes, sample=None)
        changed_call = replace_call_leaf(call, {path: changed})
        observation = prober.outcome(changed_call)
        if not isinstance(observation, Accepted):
            return False
        results.append((sizes, observation.result))
    for expected, result in results:
        if not isinstance(result, TensorSpec) or result.sizes != expected:
            return False
    return True


def _keeps_every_float_dtype(call: Call, output_dtype: str, prober: Prober) -> bool:
    """Return whether the model accepts each float dtype and returns it."""
    ((path, spec),) = call_leaves(call)
    if spec.dtype not in FLOATS or output_dtype != spec.dtype:
        return False
    for dtype in FLOATS:
        changed = replace(spec, dtype=dtype, sample=None)
        changed_call = replace_call_leaf(call, {path: changed})
        observation = prober.outcome(changed_call)
        if not _returned_dtype(observation, dtype):
            return False
    return True


def _returned_dtype(observation: Observation | Untried, dtype: str) -> bool:
    """Return whether a forward was accepted and returned one tensor of this dtype."""
    if not isinstance(observation, Accepted):
        return False
    result = observation.result
    if not isinstance(result, TensorSpec):
        return False
    return result.dtype == dtype
