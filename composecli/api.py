"""The Python API: the commands as functions, in this process unless another worker is passed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike, fspath

from composecli.commands.check import check as run_check
from composecli.commands.inspect import inspect as run_inspect
from composecli.commands.join import join as run_join
from composecli.commands.requests import (
    DEFAULT_DIM,
    MAX_SEED,
    CheckRequest,
    InspectRequest,
    JoinRequest,
    Options,
    parse_device,
    parse_fail_on,
    parse_seconds,
    parse_selection,
)
from composecli.commands.results import CheckReport, InspectReport, JoinReport, SuiteReport
from composecli.commands.suite import plan_suite, run_suite
from composecli.commands.trust import parse_import, parse_library, parse_op, parse_trust
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.input_spec import parse_input
from composecli.inference.prober import Budget
from composecli.workers.protocol import Training, Worker

PathText = str | PathLike[str]


def options(  # noqa: PLR0913 (the options of the command line, all by keyword)
    *,
    device: str = "cpu",
    inputs: Sequence[str] = (),
    select: Sequence[str] = (),
    training: str = "saved",
    key: str | None = None,
    trust: Sequence[PathText] = (),
    trust_classes: Sequence[str] = (),
    allow_ops: Sequence[str] = (),
    imports: Sequence[PathText] = (),
    max_probes: int = Budget().probes,
    max_seconds: float = Budget().seconds,
) -> Options:
    """Return the options of a command, written as on the command line.

    `options(inputs=["float32[N,3,224,224]"])` is `--input 'float32[N,3,224,224]'`. `max_seconds`
    stops a forward only in a child process: see the `worker` of the commands.

    Raises:
        ValueError: if an option has no meaning, such as a budget of no probes.
    """
    # Written so that nan is refused, too.
    if not max_probes >= 1:
        raise ValueError(f"max_probes={max_probes} is not a number of probes above 0")
    return Options(
        parse_device(device),
        tuple(parse_input(text) for text in inputs),
        tuple(parse_selection(text) for text in select),
        Training(training),
        key,
        tuple(parse_trust(fspath(file)) for file in trust),
        tuple(parse_op(text) for text in allow_ops),
        tuple(parse_import(fspath(name)) for name in imports),
        tuple(parse_library(name) for name in trust_classes),
        Budget(max_probes, parse_seconds(str(max_seconds))),
    )


def check(
    *models: PathText,
    mode: str = "sequential",
    merge: str = "cat",
    dim: int = DEFAULT_DIM,
    strict: bool = False,
    fail_on: str = "error",
    options: Options | None = None,
    worker: Worker | None = None,
) -> CheckReport:
    """Return the verdict of every seam of a chain, or of models in parallel.

    `fail_on` may be `warning`: then a report with warnings is not ok.

    Raises:
        CouldNotAttempt: if a model cannot be read or run, or is not trusted.
        ValueError: if there are fewer than two models, or a text has no meaning.
    """
    request = _check_request(models, options)
    request = replace(request, mode=Mode(mode), strict=strict, merge=Merge(merge), dim=dim)
    request = replace(request, fail_on=parse_fail_on(fail_on))
    return run_check(request, worker or in_process())


def join(  # noqa: PLR0913 (the options of the command line, all by keyword)
    *models: PathText,
    output: PathText,
    mode: str = "sequential",
    merge: str = "cat",
    dim: int = DEFAULT_DIM,
    strict: bool = False,
    fail_on: str = "error",
    bridge: str = "none",
    seed: int = 0,
    force: bool = False,
    options: Options | None = None,
    worker: Worker | None = None,
) -> JoinReport:
    """Write the joined module to `output`, and verify it.

    `written` of the report is None if the models do not fit together, or there are warnings and
    `fail_on` is `warning`.

    Raises:
        CouldNotAttempt: if a model cannot be read or run, or the output cannot be written.
        ValueError: if there are fewer than two models, or a text has no meaning.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed={seed} is not between 0 and 2**63 - 1")
    request = _check_request(models, options)
    request = replace(request, mode=Mode(mode), strict=strict, merge=Merge(merge), dim=dim)
    request = replace(request, bridge=BridgeMode(bridge), fail_on=parse_fail_on(fail_on))
    return run_join(JoinRequest(request, fspath(output), seed, force), worker or in_process())


def inspect(
    model: PathText, *, options: Options | None = None, worker: Worker | None = None
) -> InspectReport:
    """Return the inputs and outputs of a model, its evidence, layers and ties to a device.

    Raises:
        CouldNotAttempt: if the model cannot be read or run, or is not trusted.
    """
    request = InspectRequest(fspath(model), options or Options())
    return run_inspect(request, worker or in_process())


def suite(
    path: PathText,
    *,
    changed_since: str | None = None,
    options: Options | None = None,
    worker: Worker | None = None,
) -> SuiteReport:
    """Return the report of all checks of a suite file.

    What the file states takes precedence over the options.

    Raises:
        CouldNotAttempt: if the file cannot be read or has a mistake, or there is no such revision.
    """
    request = plan_suite(fspath(path), options or Options(), changed_since)
    return run_suite(request, worker or in_process())


def _check_request(models: tuple[PathText, ...], options: Options | None) -> CheckRequest:
    if len(models) < 2:
        raise ValueError("at least two models are needed")
    paths = tuple(fspath(model) for model in models)
    return CheckRequest(paths, options=options or Options())


def in_process() -> Worker:
    """Return a worker that runs models in this process. This imports torch."""
    from composecli.runtime.in_process import InProcessWorker

    return InProcessWorker()
