"""Planning a bridge: the fewest and cheapest steps that make one port accept another."""

from __future__ import annotations

from composecli.core.bridge import STEP_KINDS, Bridge, BridgeMode, apply_all
from composecli.core.contract import Port, accepts
from composecli.core.pytree import TensorSpec


def plan(producer: TensorSpec, consumer: Port, mode: BridgeMode) -> Bridge | None:
    """Return the fewest and cheapest steps after which the consumer accepts the tensor.

    `float32[2, 64, 4, 4]` reaches `float32[N, 1024]` by `(Flatten(1),)`, and `float32[N, 10]` by
    `(Flatten(1), Linear(1, 1024, 10))` if the mode allows an untrained layer, which is the last
    resort and is never put along axis 0. The result is None if no steps of this mode help.
    """
    for bridge in _bridges(producer, consumer):
        has_parameters = any(step.parameter_count > 0 for step in bridge)
        if mode is BridgeMode.NONE and bridge:
            continue
        if mode is BridgeMode.AUTO and has_parameters:
            continue
        bridged = apply_all(bridge, producer)
        if accepts(consumer, bridged) is not False:
            return bridge
    return None


def _bridges(producer: TensorSpec, consumer: Port) -> list[Bridge]:
    """Return the bridges toward the consumer: the fewest parameters, then the fewest steps, first.

    Each extends another one by a kind of step that comes later in `STEP_KINDS`.
    """
    bridges: list[Bridge] = [()]
    for kind in STEP_KINDS:
        extended = list[Bridge]()
        for bridge in bridges:
            bridged = apply_all(bridge, producer)
            extended += [(*bridge, *steps) for steps in kind.toward(bridged, consumer)]
        bridges += extended
    return sorted(bridges, key=_cost)


def _cost(bridge: Bridge) -> tuple[bool, int]:
    has_parameters = any(step.parameter_count > 0 for step in bridge)
    return has_parameters, len(bridge)
