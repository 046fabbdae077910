"""Find optional arguments that accompany ids, such as an attention mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from composecli.core.contract import Contract, Port
from composecli.core.observations import Accepted, Rejected
from composecli.core.pytree import Argument, Call, KeyPath, TensorSpec, call_leaves, resized
from composecli.inference.conventions import tensors_by_name
from composecli.inference.hints import Hints
from composecli.inference.prober import Prober

# Ids are `(batch, length)`, and so are their masks.
IDS_RANK = 2
MAX_OPTIONAL_INPUTS = 4


def optional_inputs(contract: Contract, hints: Hints, prober: Prober) -> Iterator[Port]:
    """Yield ports for optional arguments that must have the sizes of the ids.

    For `forward(input_ids, attention_mask=None)` that accepts ids `int64[N, T]`, a mask is a port
    `int64[N, T]` if `(2, 8)` is accepted with ids `(2, 8)`, `(2, 9)` is rejected with those, and
    `(2, 9)` is accepted with ids `(2, 9)`.
    """
    if not contract.inputs or hints.stated is not None:
        return
    ids_port = contract.inputs[0]
    specs = dict(call_leaves(contract.example))
    ids = specs[ids_port.path]
    if ids_port.dims is None:
        return
    if len(ids.sizes) != IDS_RANK or not ids.may_hold_ids:
        return
    number = len(contract.example.arguments)
    likely = _likely_arguments(contract, hints)
    for name, spec in likely[:MAX_OPTIONAL_INPUTS]:
        below = min(spec.below, ids.sizes[1])
        tensor = replace(spec, sizes=ids.sizes, below=below)
        argument = Argument(tensor, name)
        if _follows_length(contract.example, ids_port.path, argument, prober):
            yield Port(name, (number,), spec.dtype, ids_port.dims, optional=True)
            number += 1


def _likely_arguments(contract: Contract, hints: Hints) -> list[tuple[str, TensorSpec]]:
    """Return unused optional arguments whose names suggest the rank of ids, with their tensors."""
    used = {argument.name for argument in contract.example.arguments}
    used |= {port.name for port in contract.inputs}
    likely = list[tuple[str, TensorSpec]]()
    for argument in hints.facts.arguments:
        if argument.required or argument.name in used:
            continue
        tensors = tensors_by_name(argument.name, hints.facts)
        spec = next(tensors, None)
        if spec is not None and len(spec.sizes) == IDS_RANK:
            likely.append((argument.name, spec))
    return likely


def _follows_length(call: Call, ids_path: KeyPath, argument: Argument, prober: Prober) -> bool:
    """Return whether the argument is accepted with the length of the ids, and with no other."""
    extended = Call((*call.arguments, argument))
    ids_axis = (ids_path, 1)
    argument_path = (len(call.arguments),)
    argument_axis = (argument_path, 1)
    specs = dict(call_leaves(call))
    longer = specs[ids_path].sizes[1] + 1
    if not isinstance(prober.outcome(extended), Accepted):
        return False
    longer_argument = resized(extended, (argument_axis,), longer)
    alone = prober.outcome(longer_argument)
    if not isinstance(alone, Rejected):
        return False
    both_longer = resized(extended, (ids_axis, argument_axis), longer)
    both = prober.outcome(both_longer)
    return isinstance(both, Accepted)
