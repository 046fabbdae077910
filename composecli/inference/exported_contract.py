"""Confirm the contract that a file records: that of an exported program, or a contract file."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.contract import Contract, Evidence, EvidenceKind, Port
from composecli.core.dims import Dim, as_free
from composecli.core.observations import Accepted
from composecli.core.resizing import free_axes, resize
from composecli.inference.prober import Prober

# torch.export specializes sizes 0 and 1: dynamic dims start at 2 even if the model accepts 1.
EXPORT_MIN_SIZE = 2


def confirm_exported(stated: Contract, accepted: Accepted, prober: Prober) -> Contract:
    """Return the recorded contract, with dims from 1 if the model accepts 1.

    `float32[N>=2, 10] -> float32[N>=2, 5]` becomes `float32[N, 10] -> float32[N, 5]` if
    `float32[1, 10]` is accepted. What a contract file declares stays as it is.
    """
    if any(item.kind is EvidenceKind.DECLARED for item in stated.evidence):
        return stated
    names = dict[str, None]()
    for _, free in free_axes(stated, stated.example):
        if free.low == EXPORT_MIN_SIZE:
            names[free.name] = None
    from_one = {name for name in names if _accepts_one(stated, name, prober)}
    detail = f"{accepted.device} at {stated.example}"
    if from_one:
        names_text = ", ".join(sorted(from_one))
        detail += f"; {names_text} took 1"
    probed = Evidence(EvidenceKind.PROBED, detail)
    inputs = _start_at_one(stated.inputs, from_one)
    outputs = _start_at_one(stated.outputs, from_one)
    evidence = (*stated.evidence, probed)
    return replace(
        stated, inputs=inputs, outputs=outputs, result=accepted.result, evidence=evidence
    )


def _accepts_one(stated: Contract, name: str, prober: Prober) -> bool:
    """Return whether the model accepts size 1 on all axes with this name."""
    call = resize(stated, stated.example, {name: 1})
    observation = prober.outcome(call)
    return isinstance(observation, Accepted)


def _start_at_one(ports: tuple[Port, ...], names: set[str]) -> tuple[Port, ...]:
    """Lower the bounds of the ports' free dims with these names to 1."""
    changed = list[Port]()
    for port in ports:
        dims = list[Dim]()
        for dim in port.dims or ():
            free = as_free(dim)
            if free is not None and free.name in names:
                dims.append(replace(free, low=1))
            else:
                dims.append(dim)
        changed.append(replace(port, dims=tuple(dims)))
    return tuple(changed)
