"""What becomes of each free dim of a model's inputs: kept apart, mixed or lost."""

from __future__ import annotations

from collections.abc import Iterator

from composecli.commands.opened_model import OpenedModel
from composecli.commands.results import AxisReport
from composecli.commands.session import Session
from composecli.core.blueprint import single_model
from composecli.core.contract import Contract, output_names
from composecli.core.dims import admits, free_dims
from composecli.core.pytree import Axis, Call, call_leaves, leaves, size_of
from composecli.core.resizing import axes_named, resize, sizes_by_name
from composecli.core.slices import Fate, Followed, fates

MAX_DIMS = 8
# With this many slices or more, one forward tells whether they are kept apart.
MIN_SLICES = 4
_SIZES = (4, 5, 6, 7, 9, 3, 2)


def axis_reports(session: Session, part: OpenedModel, contract: Contract) -> Iterator[AxisReport]:
    """Yield the fates of each free dim of the inputs, one at a time; none without an output."""
    if not part.has_module or not list(leaves(contract.result)):
        return
    session.progress(f"following the axes of {part.name}")
    call = contract.example
    names = list(sizes_by_name(contract, call))
    for name in names[:MAX_DIMS]:
        axes = axes_named(contract, call, name)
        followed = _follow(session, part, contract, name)
        yield _report(contract, name, axes, followed)


def _follow(session: Session, part: OpenedModel, contract: Contract, name: str) -> Followed | None:
    """Follow the slices of one dim; None if no forward that follows them succeeds."""
    for call in _calls(contract, name):
        axes = axes_named(contract, call, name)
        if len({size_of(call, axis) for axis in axes}) != 1:
            continue
        followed = session.follow(single_model(part.handle), call, axes)
        if followed is not None and followed.failed is None:
            return followed
    return None


def _calls(contract: Contract, name: str) -> Iterator[Call]:
    """Yield the calls to try: the example if it has enough slices, else one with more, first.

    The other size is one that no axis of the example has.
    """
    call = contract.example
    own = sizes_by_name(contract, call)[name]
    if own >= MIN_SLICES:
        yield call
        return
    size = _size_of_its_own(contract, name)
    if size is not None:
        yield resize(contract, call, {name: size})
    if own > 1:
        yield call


def _size_of_its_own(contract: Contract, name: str) -> int | None:
    """Return a size that a dim admits and no axis of the example has; None if none is known."""
    ranges = [free for free in contract.free_inputs if free.name == name]
    taken = {size for _, spec in call_leaves(contract.example) for size in spec.sizes}
    for size in _SIZES:
        if size not in taken and all(admits(free, size) for free in ranges):
            return size
    return None


def _is_named(contract: Contract, name: str) -> bool:
    """Return whether the contract shows a dim by its name, and not as one of any number of axes."""
    if contract.any_rank is None:
        return True
    shown = [free.name for port in contract.any_rank.inputs for free in free_dims(port.dims or ())]
    return name in shown


def _report(
    contract: Contract, name: str, axes: tuple[Axis, ...], followed: Followed | None
) -> AxisReport:
    """Return the fate of a dim in each output; none is known without a forward."""
    ports = {port.path: port.name for port in contract.inputs}
    inputs = tuple((ports[path], axis) for path, axis in axes)
    if not _is_named(contract, name):
        _, number = axes[0]
        name = f"axis {number}"
    if followed is None:
        return AxisReport(name, inputs, ())
    names = output_names(contract.result)
    found = tuple((names[fate.output], fate) for fate in fates(followed))
    reasons = list(followed.opaque)
    if not any(fate.fate is Fate.UNKNOWN for _, fate in found):
        reasons.clear()
    if followed.statistics:
        reasons.append("batch norm is in train mode, where it mixes samples")
    return AxisReport(name, inputs, found, ", ".join(reasons) or None)
