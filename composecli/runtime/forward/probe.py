"""Probing: one real forward, and where it is refused, the op, the submodule and what would have passed."""

from __future__ import annotations

import errno
import re
from dataclasses import replace
from typing import Any

import torch

from composecli.core.blueprint import Blueprint, models, single_model
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Tree
from composecli.runtime.forward.data_dependence import Ops, weightless
from composecli.runtime.forward.op_recorder import Recording, recording
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import ModelFailed, Run, bridge_layers, run
from composecli.runtime.model import Model, last_line
from composecli.runtime.tensors import Values, tree_of, zeros_like

# torch's allocator, C++'s, the system's, and oneDNN's, which says no more than that it has no primitive or memory.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|std::bad_alloc|[Cc]an(no|')t allocate memory|not enough memory|unable to mmap|"
    r"could not (create|initialize|execute|get) an? (primitive|memory)"
)


def probe(
    blueprint: Blueprint, parts: dict[int, Model], values: Values, *, seed: int, detail: Detail
) -> Observation:
    """Run the blueprint once without gradients and leave everything as it was."""
    parts = {number: parts[number] for number in models(blueprint)}
    used = list(parts.values())
    device = used[0].request.device
    seen: Recording | None = None
    if detail is Detail.PARAMETER_OPS:
        number, model = next(iter(parts.items()))
        seen, result, error = _watched(number, model, values, seed)
        if error is None:
            return Accepted((tree_of(result),), device, tuple(seen.parameter_ops))
    ops = Ops()
    try:
        with torch.no_grad(), preserving_state(used, seed), weightless(parts, ops):
            done = run(blueprint, parts, values, bridge_layers(blueprint, 0, device))
            results = _trees(done)
    except ModelFailed as failed:
        refused, stage = _refused(failed, device, ops.raised), _reached(failed, blueprint)
        if detail is Detail.OUTCOME or refused.out_of_memory or stage is None:
            return refused
        return _explained(refused, failed, (stage, parts[stage]), seen, seed)
    return Accepted(results, device)


def cannot_be_made(error: BaseException, device: str) -> Rejected:
    """The refusal that it is where not even the input can be made: too large for the memory, of no known dtype."""
    return Rejected(
        0,
        type(error).__name__,
        last_line(error),
        device,
        op="making the input",
        out_of_memory=_is_out_of_memory(error),
    )


def _trees(done: Run) -> tuple[Tree, ...]:
    return tuple(map(tree_of, done.results))


def _watched(
    number: int, model: Model, values: Values, seed: int
) -> tuple[Recording, Any, BaseException | None]:
    """A forward under watch: what was seen, and its result or its error."""
    result: Any = None
    error: BaseException | None = None
    given = [*values[0], *values[1].values()]
    with (
        torch.no_grad(),
        preserving_state([model], seed),
        weightless({number: model}),
        recording(model.module, given) as seen,
    ):
        try:
            result = model.module(*values[0], **values[1])
        except (Exception, SystemExit) as raised:
            error = raised
    return seen, result, error


def _refused(failed: ModelFailed, device: str, raised: BaseException | None) -> Rejected:
    """`raised` is the error of the op, for where the one that arrived has lost its words."""
    error = failed.error
    if raised is not None and str(error).rstrip().endswith(("RuntimeError:", "interpreter.")):
        error = raised
    return Rejected(
        stage=failed.number,
        error=type(failed.error).__name__,
        message=last_line(error),
        device=device,
        out_of_memory=_is_out_of_memory(error),
        no_descriptor=_wants_a_file(error),
        results=_trees(failed.run),
    )


def _reached(failed: ModelFailed, blueprint: Blueprint) -> int | None:
    """The model that raised; None where it was what goes between two of them."""
    order = models(blueprint)
    reached = failed.number < len(order) and len(failed.run.inputs) == failed.number + 1
    return order[failed.number] if reached else None


def _explained(
    base: Rejected, failed: ModelFailed, part: tuple[int, Model], seen: Recording | None, seed: int
) -> Rejected:
    """The refusal with the op and the submodule, and what else would have passed. `seen` where it was watched."""
    values = failed.run.inputs[-1]
    seen = seen or _watched(*part, values, seed)[0]
    zeros: Values = (
        tuple(map(zeros_like, values[0])),
        {name: zeros_like(value) for name, value in values[1].items()},
    )
    return replace(
        base,
        op=seen.refusal.op if seen.refusal else None,
        module=seen.module,
        code=_code_line(failed.error),
        operands=seen.refusal.operands if seen.refusal else (),
        numbers=seen.refusal.numbers if seen.refusal else (),
        ops=seen.ops,
        runs_on_zeros=_runs(*part, zeros, seed),
        runs_in_eval=_runs_in_eval(*part, values, seed),
        parameter_ops=tuple(seen.parameter_ops),
    )


def _wants_a_file(error: BaseException | None) -> bool:
    """Whether it failed for want of a file descriptor: an import in the middle of a forward."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return True
        if "Too many open files" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(
        _NO_MEMORY.search(str(error))
    )


def _runs(number: int, model: Model, values: Values, seed: int) -> bool:
    try:
        with torch.no_grad(), preserving_state([model], seed), weightless({number: model}):
            run(single_model(number), {number: model}, values, {})
    except ModelFailed:
        return False
    return True


def _runs_in_eval(number: int, model: Model, values: Values, seed: int) -> bool:
    """Whether the same input passes in eval mode; the flags are put back with the rest of the state."""
    flags: list[tuple[Any, bool]] = [
        (module, module.training)
        for module in model.module.modules()
        if hasattr(module, "training")
    ]
    if not model.switchable or not any(training for _, training in flags):
        return False
    try:
        model.module.eval()
        return _runs(number, model, values, seed)
    finally:
        for module, training in flags:
            module.training = training


def _code_line(error: BaseException) -> str | None:
    """The line of code that raised, from the trace that TorchScript puts into its message: as it was written where
    the archive still has that, else as it was compiled."""
    compiled, _, written = str(error).partition("Traceback of TorchScript, original code")
    return _marked_line(written) or _marked_line(compiled)


def _marked_line(trace: str) -> str | None:
    found, before = None, ""
    for line in trace.splitlines():
        if "<--- HERE" in line:
            found = before.strip()
        elif line.strip():
            before = line
    return found
