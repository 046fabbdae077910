"""Verifying a joined file: loaded again, it must agree with a reference run of its models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from composecli.core.blueprint import models
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FileReference, ModelKind
from composecli.core.pytree import Call
from composecli.runtime.bridge_steps import Layers, layer_name, make_layers
from composecli.runtime.describe import shared_names
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.run import run_blueprint
from composecli.runtime.joining.allclose import allclose
from composecli.runtime.joining.forward_source import part_name
from composecli.runtime.joining.gradients import Digest, Gradient, GradientRun, RunResult
from composecli.runtime.loading import load, with_values
from composecli.runtime.model import Model
from composecli.runtime.tensors import Maker
from composecli.workers.protocol import (
    GRADIENTS,
    Check,
    OpenRequest,
    ReferenceRequest,
    Refusal,
    Training,
    Verified,
)

# The gradients of a model with more parameters are compared at the first call only.
MAX_BYTES_COMPARED_AGAIN = 2**28
# Gradients that are compared element by element are kept whole, this many bytes at a time.
MAX_BYTES_COMPARED_WHOLE = 2**26
MAX_NAMES_SHOWN = 4
# What TorchScript puts before the text of an assertion.
_ASSERTION = "AssertionError: "


@dataclass(frozen=True)
class _Parts:
    """What was joined. `used` are the models by number."""

    request: ReferenceRequest
    used: dict[int, Model]
    layers: Layers
    samples: list[torch.Tensor]

    @property
    def device(self) -> str:
        """The device of the models."""
        first = next(iter(self.used.values()))
        return first.request.device

    def name(self, number: int) -> str:
        """Return the attribute of the joined module that holds this model."""
        return part_name(self.request.blueprint, number)

    def seed(self, number: int) -> int:
        """Return the seed of the call with this number."""
        return self.request.seed + number

    def maker(self, number: int) -> Maker:
        """Return the maker of the values of the call with this number."""
        return Maker(self.device, self.seed(number), self.samples)


@dataclass(frozen=True)
class RunFailure:
    """A forward or backward pass raised an error with this message."""

    message: str


@dataclass(frozen=True)
class ReferenceRun:
    """A reference run at one call, and its outcome.

    `no_backward` is the error if the separate models run forward and not backward.
    """

    call: Call
    run: GradientRun
    outcome: RunResult | RunFailure
    no_backward: str | None = None


@dataclass(frozen=True)
class Reference:
    """The reference runs of the joined models, one for each call of the request."""

    parts: _Parts
    runs: tuple[ReferenceRun, ...]


@dataclass(frozen=True)
class _Pair:
    """The reference and the file at the same call."""

    call: Call
    reference_run: GradientRun
    file_run: GradientRun
    reference: RunResult
    file: RunResult


def run_reference(
    request: ReferenceRequest, opened: dict[int, Model], samples: list[torch.Tensor]
) -> Reference:
    """Run the blueprint with the separate models at each call of the request."""
    used = {number: opened[number] for number in models(request.blueprint)}
    first = next(iter(used.values()))
    device = first.request.device
    layers = make_layers(request.blueprint, request.seed, device)
    parts = _Parts(request, used, layers, samples)
    runs = list[ReferenceRun]()
    for number, call in enumerate(request.calls):
        runs.append(_run_with_or_without_gradients(parts, number, call))
    return Reference(parts, tuple(runs))


def _run_with_or_without_gradients(parts: _Parts, number: int, call: Call) -> ReferenceRun:
    """Run the separate models at a call; only forward if an op of theirs has no derivative."""
    gradient_run = _reference_run(parts, number, call)
    outcome = _try_run(gradient_run)
    if isinstance(outcome, RunFailure) and gradient_run.gradients:
        forward_run = replace(gradient_run, gradients=False)
        forward_outcome = _try_run(forward_run)
        if isinstance(forward_outcome, RunResult):
            return ReferenceRun(call, forward_run, forward_outcome, outcome.message)
    return ReferenceRun(call, gradient_run, outcome)


def verify(path: str, expected: Reference) -> Verified:
    """Compare the outputs, gradients, sharing and training state of a file with the reference.

    Whatever is wrong with the file is a failed check, not an exception.
    """
    parts = expected.parts
    try:
        request = _request_for_written_file(path, parts.device)
        written = with_values(load(request))
    except CouldNotAttempt as failure:
        notes = "; ".join(failure.problem.notes)
        reload = Check("reload", passed=False, detail=notes)
        return Verified((reload,), ())
    checks = list[Check]()
    results = list[str]()
    refusals = list[Refusal]()
    without_gradient = tuple[str, ...]()
    first = expected.runs[0].call
    for number, reference in enumerate(expected.runs):
        pair = _run_file(parts, written, number, reference)
        if isinstance(pair, RunFailure):
            if isinstance(reference.outcome, RunResult) and reference.call != first:
                refusals.append(Refusal(reference.call, pair.message))
                continue
            name = f"forward at {reference.call}"
            checks.append(Check(name, passed=False, detail=pair.message))
            continue
        results.append(pair.reference.result)
        checks.append(_compare_outputs(pair))
        if reference.no_backward is not None:
            detail = f"the separate models have none either: {reference.no_backward}"
            checks.append(Check("gradients", passed=True, detail=detail))
        if pair.reference_run.gradients:
            checks.append(_compare_gradients(pair))
            gradients = pair.reference.gradients
            without_gradient = tuple(name for name in gradients if gradients[name] is None)
    checks.append(_compare_sharing(parts, written.module))
    checks.append(_compare_training(parts, written.module))
    return Verified(tuple(checks), tuple(results), without_gradient, tuple(refusals))


def _run_file(
    parts: _Parts, written: Model, number: int, reference: ReferenceRun
) -> _Pair | RunFailure:
    """Run the file as the reference was run; return the failure of either if one fails."""
    if isinstance(reference.outcome, RunFailure):
        return reference.outcome
    file_run = _file_run(parts, written, number, reference)
    outcome = _try_run(file_run)
    if isinstance(outcome, RunFailure):
        return outcome
    return _Pair(reference.call, reference.run, file_run, reference.outcome, outcome)


def _try_run(gradient_run: GradientRun) -> RunResult | RunFailure:
    """Return the result of a run, or the last line of the error that it raised."""
    try:
        return gradient_run.run()
    except Exception as error:
        message = telling_line(error)
        return RunFailure(message.removeprefix(_ASSERTION))


def _request_for_written_file(path: str, device: str) -> OpenRequest:
    """Return a request to open the file just written here, from parts that were admitted."""
    return OpenRequest(
        FileReference(path), ModelKind.TORCHSCRIPT, device, Training.SAVED, trusted=True, key=None
    )


def _reference_run(parts: _Parts, number: int, call: Call) -> GradientRun:
    """Return the run of the separate models at a call, with gradients unless they are large."""

    def forward() -> Any:
        """Run the blueprint on new values, the same each time."""
        values = parts.maker(number).call(call)
        return run_blueprint(parts.request.blueprint, parts.used, values, parts.layers).result

    parameters = _parameters(parts)
    distinct = {id(parameter): parameter for parameter in parameters.values()}
    nbytes = sum(parameter.nbytes for parameter in distinct.values())
    gradients = number == 0 or nbytes <= MAX_BYTES_COMPARED_AGAIN
    used = list(parts.used.values())
    return GradientRun(used, forward, parameters, parts.seed(number), gradients)


def _parameters(parts: _Parts) -> dict[str, torch.Tensor]:
    """Return every parameter of the parts by the name that it has in the joined module."""
    modules = {parts.name(number): model.module for number, model in parts.used.items()}
    for number, layer in parts.layers.items():
        modules[layer_name(number)] = layer
    parameters = dict[str, torch.Tensor]()
    for prefix, module in modules.items():
        for name, parameter in module.named_parameters(remove_duplicate=False):
            parameters[f"{prefix}.{name}"] = parameter
    return parameters


def _file_run(parts: _Parts, written: Model, number: int, reference: ReferenceRun) -> GradientRun:
    """Return the run of the file on the values and under the seed of the reference."""

    def forward() -> Any:
        """Call the joined module on new values, the same each time."""
        values = parts.maker(number).call(reference.call)
        return written.module(*values.positional, **values.named)

    parameters = dict(written.module.named_parameters(remove_duplicate=False))
    gradients = reference.run.gradients
    return GradientRun([written], forward, parameters, parts.seed(number), gradients)


def _compare_outputs(pair: _Pair) -> Check:
    """Return the check that the outputs are as many and close to each other, in order."""
    expected = pair.reference.outputs
    actual = pair.file.outputs
    same_count = len(expected) == len(actual)
    if same_count and all(map(allclose, expected, actual)):
        detail = f"{pair.call} -> {pair.reference.result}"
        return Check("outputs", passed=True, detail=detail)
    detail = f"{pair.call}: the file returns different values than the separate models"
    return Check("outputs", passed=False, detail=detail)


def _compare_gradients(pair: _Pair) -> Check:
    """Return the check that the same parameters get gradients that differ by rounding only."""
    expected = pair.reference.gradients
    actual = pair.file.gradients
    differing = sorted(expected.keys() ^ actual.keys())
    if differing:
        names = ", ".join(differing[:MAX_NAMES_SHOWN])
        detail = f"parameters differ: {names}"
        return Check(GRADIENTS, passed=False, detail=detail)
    suspect = list[str]()
    for name, gradient in expected.items():
        if not _is_same_gradient(gradient, actual[name]):
            suspect.append(name)
    wrong = list[str]()
    for group in _groups(suspect, pair.reference_run):
        wrong += _names_not_close(group, pair)
    if wrong:
        detail = f"{pair.call}: {len(wrong)} differ, {wrong[0]} first"
        return Check(GRADIENTS, passed=False, detail=detail)
    some = sum(gradient is not None for gradient in expected.values())
    detail = f"{some} of {len(expected)} parameters, same as the separate models"
    return Check(GRADIENTS, passed=True, detail=detail)


def _is_same_gradient(one: Gradient, other: Gradient) -> bool:
    """Whether two gradients are close, have equal digests, or are both None."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return allclose(one, other)
    if isinstance(one, Digest) and isinstance(other, Digest):
        return one == other
    return one is other


def _groups(names: list[str], gradient_run: GradientRun) -> Iterator[list[str]]:
    """Split the parameters into groups whose gradients fit into memory together."""
    group = list[str]()
    nbytes = 0
    for name in names:
        more = gradient_run.parameters[name].nbytes
        if group and nbytes + more > MAX_BYTES_COMPARED_WHOLE:
            yield group
            group, nbytes = [], 0
        group.append(name)
        nbytes += more
    if group:
        yield group


def _names_not_close(names: list[str], pair: _Pair) -> Iterator[str]:
    """Yield the parameters whose gradients differ by more than rounding.

    Digests also differ after rounding in another order, so both sides run again and keep these
    gradients whole.
    """
    kept = frozenset(names)
    reference_run = replace(pair.reference_run, kept=kept)
    expected = reference_run.run().gradients
    file_run = replace(pair.file_run, kept=kept)
    actual = file_run.run().gradients
    for name in names:
        one, other = expected[name], actual[name]
        tensors = isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        if not tensors or not allclose(one, other):
            yield name


def _compare_sharing(parts: _Parts, joined: nn.Module) -> Check:
    """Return the check that tensors with several names in a part have them in the file, too."""
    expected = set[frozenset[str]]()
    for number, model in parts.used.items():
        prefix = parts.name(number)
        for group in shared_names(model.module):
            full = frozenset(f"{prefix}.{name}" for name in group)
            expected.add(full)
    kept = {frozenset(group) for group in shared_names(joined)}
    lost = expected - kept
    if lost:
        first = sorted(next(iter(lost)))
        detail = f"no longer shared: {', '.join(first)}"
        return Check("sharing", passed=False, detail=detail)
    return Check("sharing", passed=True, detail=f"{len(expected)} shared tensors")


def _compare_training(parts: _Parts, joined: nn.Module) -> Check:
    """Return the check that no submodule has changed between train and eval mode."""
    changed = list(_changed_flags(parts, joined))
    if changed:
        return Check("training state", passed=False, detail=f"{changed[0]} changed")
    return Check("training state", passed=True, detail="as saved")


def _changed_flags(parts: _Parts, joined: nn.Module) -> Iterator[str]:
    """Yield the submodules of the file whose training flag is not that of their part."""
    actual = _training_flags(joined)
    for number, model in parts.used.items():
        if not model.switchable:
            continue
        prefix = parts.name(number)
        for name, training in _training_flags(model.module).items():
            full = f"{prefix}.{name}".rstrip(".")
            if actual.get(full, training) != training:
                yield full


def _training_flags(module: nn.Module) -> dict[str, bool]:
    """Return the training flag of each submodule that has one; a frozen submodule does not."""
    flags = dict[str, bool]()
    for name, inner in module.named_modules(remove_duplicate=False):
        if hasattr(inner, "training"):
            flags[name] = inner.training
    return flags
