"""The Python API: the commands as functions, in this process unless another worker is handed in."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath

from composecli.commands.check import check as run_check
from composecli.commands.inspect import inspect as run_inspect
from composecli.commands.join import join as run_join
from composecli.commands.requests import (
    CheckRequest,
    InspectRequest,
    JoinRequest,
    Options,
    parse_device,
    parse_selection,
)
from composecli.commands.results import CheckReport, InspectReport, JoinReport
from composecli.commands.trust import parse_op, parse_trust
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.input_spec import parse_input
from composecli.inference.budget import Budget
from composecli.workers.protocol import Training, Worker

PathText = str | PathLike[str]


def options(  # noqa: PLR0913 (the words of the command, all by name)
    *,
    device: str = "cpu",
    inputs: Sequence[str] = (),
    select: Sequence[str] = (),
    training: str = "saved",
    key: str | None = None,
    trust: Sequence[PathText] = (),
    allow_ops: Sequence[str] = (),
    max_probes: int = Budget().probes,
    max_seconds: float = Budget().seconds,
) -> Options:
    """What every command takes, in the words of the command line (`inputs=["float32[N,3,224,224]"]`).

    Raises:
        ValueError: a word means nothing.
    """
    return Options(
        parse_device(device),
        tuple(map(parse_input, inputs)),
        tuple(map(parse_selection, select)),
        Training(training),
        key,
        tuple(parse_trust(fspath(file)) for file in trust),
        tuple(map(parse_op, allow_ops)),
        Budget(max_probes, max_seconds),
    )


def check(
    *models: PathText,
    mode: str = "sequential",
    merge: str = "cat",
    dim: int = 1,
    strict: bool = False,
    options: Options | None = None,
    worker: Worker | None = None,
) -> CheckReport:
    """The verdict of every seam of a chain, or of models beside each other.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or is not trusted.
        ValueError: fewer than two models, or a word that means nothing.
    """
    request = _check_request(models, (mode, merge, dim, strict), BridgeMode.NONE, options)
    return run_check(request, worker or in_process())


def join(  # noqa: PLR0913 (the words of the command, all but two by name)
    *models: PathText,
    output: PathText,
    mode: str = "sequential",
    merge: str = "cat",
    dim: int = 1,
    strict: bool = False,
    bridge: str = "none",
    seed: int = 0,
    force: bool = False,
    options: Options | None = None,
    worker: Worker | None = None,
) -> JoinReport:
    """The combined module, written to `output` and verified; `written` is None where the check does not allow it.

    Raises:
        CouldNotAttempt: a model cannot be read or run, or the output cannot be written.
        ValueError: fewer than two models, or a word that means nothing.
    """
    asked = _check_request(models, (mode, merge, dim, strict), BridgeMode(bridge), options)
    return run_join(JoinRequest(asked, fspath(output), seed, force), worker or in_process())


def inspect(
    model: PathText, *, options: Options | None = None, worker: Worker | None = None
) -> InspectReport:
    """What a model takes and gives, with the evidence, its layers and what ties it to a device.

    Raises:
        CouldNotAttempt: the model cannot be read or run, or is not trusted.
    """
    return run_inspect(InspectRequest(fspath(model), options or Options()), worker or in_process())


def _check_request(
    models: tuple[PathText, ...],
    words: tuple[str, str, int, bool],
    bridge: BridgeMode,
    options: Options | None,
) -> CheckRequest:
    if len(models) < 2:
        raise ValueError("two models or more are needed")
    mode, merge, dim, strict = words
    paths = tuple(fspath(model) for model in models)
    return CheckRequest(paths, Mode(mode), strict, Merge(merge), dim, bridge, options or Options())


def in_process() -> Worker:
    """The worker in this process, for the Python API: torch is imported here and now."""
    from composecli.runtime.in_process import InProcessWorker

    return InProcessWorker()
