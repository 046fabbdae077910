"""Probing: one real forward and, if it fails, the op, the submodule and possible remedies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from composecli.core.blueprint import Blueprint, models, single_model
from composecli.core.observations import (
    Accepted,
    Detail,
    Observation,
    Rejected,
    Remedy,
)
from composecli.core.pytree import Tree
from composecli.runtime.bridge_steps import make_layers
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.data_dependence import LastOpError, weightless
from composecli.runtime.forward.lookups import with_origin
from composecli.runtime.forward.op_recorder import Recording, recording_ops
from composecli.runtime.forward.rejection_kinds import rejection_kind
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.result_limit import require_few_outputs
from composecli.runtime.forward.run import BlueprintRun, ModelFailed, run_blueprint
from composecli.runtime.forward.script_trace import failed_submodule
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values, tree_of, zeros_like

# Where TorchScript ends a message with these, the message of the op is lost.
_EMPTY_ENDINGS = ("RuntimeError:", "interpreter.")


class _Part(NamedTuple):
    """One model of a blueprint, with the number that the worker gave it."""

    number: int
    model: Model


class _RecordedForward(NamedTuple):
    """A recorded forward, with its result or its error."""

    recording: Recording
    result: Any
    error: BaseException | None


def probe(
    blueprint: Blueprint,
    opened: Mapping[int, Model],
    values: Values,
    *,
    seed: int,
    detail: Detail,
) -> Observation:
    """Run the blueprint once without gradients, and restore the state of its models.

    Raises ValuesRequired if the result depends on weights that were not read, and ParameterMutated
    if a model writes to its parameters.
    """
    order = models(blueprint)
    used = {number: opened[number] for number in order}
    first = _Part(order[0], used[order[0]])
    device = first.model.request.device
    recording: Recording | None = None
    if detail is Detail.PARAMETER_OPS:
        recorded = _record_forward(first, values, seed)
        if recorded.error is None:
            require_few_outputs(first.model, values, recorded.result)
            return _accepted(recorded, first.model)
        recording = recorded.recording
    last_error = LastOpError()
    used_models = list(used.values())
    restoring = preserving_state(used_models, seed)
    try:
        with torch.no_grad(), restoring, weightless(used, last_error):
            layers = make_layers(blueprint, 0, device)
            run = run_blueprint(blueprint, used, values, layers)
        for place, inputs, result in zip(order, run.inputs, run.results, strict=False):
            require_few_outputs(used[place], inputs, result)
        results = _trees(run)
    except ModelFailed as failed:
        rejected = _rejected(failed, device, last_error.error)
        number = _failed_model(failed, blueprint)
        if detail is Detail.OUTCOME or rejected.out_of_memory or number is None:
            return rejected
        part = _Part(number, used[number])
        return _explained(rejected, failed, part, recording, seed)
    return Accepted(results, device)


def _accepted(recorded: _RecordedForward, model: Model) -> Accepted:
    """Return the observation of a recorded forward that did not fail."""
    recording = recorded.recording
    return Accepted(
        (tree_of(recorded.result),),
        model.request.device,
        tuple(recording.parameter_ops),
        recording.reads_values,
        unread_bytes(model),
    )


def unread_bytes(model: Model) -> int:
    """Return the size of the weights of a model that were not read."""
    if model.weights is None:
        return 0
    return sum(storage.nbytes() for storage in model.weights.unread.values())


def reject_input(error: BaseException, device: str) -> Rejected:
    """Return the rejection of an input that cannot even be made.

    It needs too much memory, or has a dtype that this torch does not know.
    """
    return Rejected(
        0,
        type(error).__name__,
        telling_line(error),
        device,
        op="creating the input",
        kind=rejection_kind(error),
    )


def _trees(run: BlueprintRun) -> tuple[Tree, ...]:
    """Describe the results of the models that ran, in their order."""
    return tuple(map(tree_of, run.results))


def _record_forward(part: _Part, values: Values, seed: int) -> _RecordedForward:
    """Run one model and record its ops. Its error is returned, not raised."""
    result: Any = None
    error: BaseException | None = None
    module = part.model.module
    with (
        torch.no_grad(),
        preserving_state([part.model], seed),
        weightless({part.number: part.model}),
        recording_ops(module, values.flat()) as recording,
    ):
        try:
            result = module(*values.positional, **values.named)
        except (Exception, SystemExit) as raised:
            error = raised
    return _RecordedForward(recording, result, error)


def _rejected(failed: ModelFailed, device: str, op_error: BaseException | None) -> Rejected:
    """Return the rejection without an explanation; `op_error` is the last error of an op."""
    error = failed.error
    if op_error is not None:
        text = str(error).rstrip()
        if text.endswith(_EMPTY_ENDINGS):
            error = op_error
    return Rejected(
        stage=failed.number,
        error=_class_name(failed.error),
        message=telling_line(error),
        device=device,
        kind=rejection_kind(error),
        results=_trees(failed.run),
    )


def _class_name(error: BaseException) -> str:
    """Return the class of an error; "" for the uninformative `torch.jit.Error` of TorchScript."""
    name = type(error).__name__
    if name == "Error":
        return ""
    return name


def _failed_model(failed: ModelFailed, blueprint: Blueprint) -> int | None:
    """Return the model that raised; None if a bridge or the merge did."""
    order = models(blueprint)
    if failed.number >= len(order):
        return None
    started = len(failed.run.inputs)
    if started != failed.number + 1:
        return None
    return order[failed.number]


def _explained(
    rejected: Rejected, failed: ModelFailed, part: _Part, recording: Recording | None, seed: int
) -> Rejected:
    """Return the rejection with the op and the submodule that failed, and possible remedies.

    The forward is recorded now if there is no recording of it yet.
    """
    values = failed.run.inputs[-1]
    if recording is None:
        recording = _record_forward(part, values, seed).recording
    explained = replace(
        rejected,
        module=recording.module,
        submodule=recording.submodule or _traced_submodule(failed, part),
        code=_code_line(failed.error),
        ops=recording.ops,
        remedies=_remedies(part, values, seed),
        parameter_ops=tuple(recording.parameter_ops),
    )
    failure = recording.failure
    if failure is None:
        return explained
    return replace(
        explained,
        op=failure.op,
        operands=failure.operands,
        numbers=failure.numbers,
        lookup=with_origin(failure.lookup, values),
    )


def _traced_submodule(failed: ModelFailed, part: _Part) -> str | None:
    """Return the submodule of TorchScript that failed, if the trace of the error tells it."""
    module = part.model.module
    if not isinstance(module, torch.jit.ScriptModule):
        return None
    return failed_submodule(module, failed.error)


def _remedies(part: _Part, values: Values, seed: int) -> tuple[Remedy, ...]:
    """Return the changes with which the forward runs; both may apply."""
    remedies = list[Remedy]()
    if _runs_in_eval(part, values, seed):
        remedies.append(Remedy.EVAL_MODE)
    zeros = zeros_like(values)
    if _runs(part, zeros, seed):
        remedies.append(Remedy.ZEROS)
    return tuple(remedies)


def _runs(part: _Part, values: Values, seed: int) -> bool:
    """Return whether the model alone runs on these values."""
    number, model = part
    opened = {number: model}
    blueprint = single_model(number)
    try:
        with torch.no_grad(), preserving_state([model], seed), weightless(opened):
            run_blueprint(blueprint, opened, values, {})
    except ModelFailed:
        return False
    return True


def _runs_in_eval(part: _Part, values: Values, seed: int) -> bool:
    """Return whether a model in train mode accepts the same input in eval mode."""
    module = part.model.module
    flags = list[tuple[Any, bool]]()
    for submodule in module.modules():
        if hasattr(submodule, "training"):
            flags.append((submodule, submodule.training))
    if not part.model.switchable:
        return False
    if not any(training for _, training in flags):
        return False
    try:
        module.eval()
        return _runs(part, values, seed)
    finally:
        for submodule, training in flags:
            submodule.training = training


def _code_line(error: BaseException) -> str | None:
    """Return the line of code that raised, from the trace in a message of TorchScript.

    It is the line of the original code if the archive still has that, or of the compiled code.
    """
    compiled, _, original = str(error).partition("Traceback of TorchScript, original code")
    line = _marked_line(original)
    return line or _marked_line(compiled)


def _marked_line(trace: str) -> str | None:
    """Return the last line of code that has a mark `<--- HERE` below it."""
    marked = None
    previous = ""
    for line in trace.splitlines():
        if "<--- HERE" in line:
            marked = previous.strip()
        elif line.strip():
            previous = line
    return marked
