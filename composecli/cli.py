"""The command line: words in, a request out, an exit code back. Neither torch nor rich is imported here."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import click

from composecli import __version__, console
from composecli.commands.requests import (
    CheckRequest,
    InspectRequest,
    JoinRequest,
    Limits,
    Options,
    parse_device,
    parse_memory,
    parse_selection,
)
from composecli.commands.results import BUG, INTERRUPTED, OUR_BUG, Report
from composecli.commands.trust import parse_op, parse_trust
from composecli.console import OutputOptions
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.input_spec import parse_input
from composecli.core.model_ref import FactoryReference, parse_reference
from composecli.inference.budget import Budget
from composecli.report.explain import find, listing, page
from composecli.workers.protocol import Isolation, Training, Worker

EXIT_CODES = """\b
Exit codes, the same in every format:
  0  compatible (join: written and verified)
  1  not compatible (bridgeable, too, unless the bridge was asked for)
  2  the words on the command line are wrong
  3  could not tell: unreadable, refused as unsafe, crashed, unknown
  70 a bug in composecli
"""

Command = TypeVar("Command", bound=Callable[..., Any])


class _Parsed(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A parameter whose text is parsed by a function that raises ValueError with words for a person."""

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self.parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self.parse(value), value
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _common(command: Command) -> Command:
    options = (
        click.option("--device", type=_Parsed("DEVICE", parse_device), default="cpu", metavar="DEVICE",
                     show_default=True, help="Where probes run: cpu, cuda, cuda:1, or meta (then the CPU decides)."),
        click.option("--input", "inputs", type=_Parsed("SPEC", parse_input), multiple=True, metavar="SPEC",
                     help="An input of the first model: 'float32[N,3,224,224]', 1,3,224,224, ids=int64[1,16], "
                          "rate:=16000, or @sample.pt. Once for each input."),
        click.option("--select", "selections", type=_Parsed("PORT", parse_selection), multiple=True, metavar="PORT",
                     help="Use one of several outputs: logits, '[0]'; 2:logits for the second model."),
        click.option("--training", type=click.Choice([str(mode) for mode in Training]), default="saved",
                     show_default=True, help="Run models as they were saved, or put them into eval or train mode."),
        click.option("--key", metavar="NAME",
                     help="The entry of a checkpoint that holds the weights, for factory@weights."),
        click.option("--trust", "trusts", type=_Parsed("FILE", parse_trust), multiple=True, metavar="FILE",
                     help="Run whatever this model's file holds: one that you made or know. "
                          "FILE@sha256:HEX pins its content."),
        click.option("--allow-op", "allowed_ops", type=_Parsed("NS::OP", parse_op), multiple=True, metavar="NS::OP",
                     help="Run this op, too, in files that are not trusted."),
        click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=300.0, show_default=True,
                     metavar="S", help="Seconds that loading, or one forward, may take."),
        click.option("--max-memory", type=_Parsed("SIZE", parse_memory), metavar="SIZE",
                     help="Memory that models may use: 8G, 500M.  [default: 80 % of what there is]"),
        click.option("--isolation", type=click.Choice([str(mode) for mode in Isolation]), default="best",
                     show_default=True, help="Confine the process that runs models: fail without, as can be, or not."),
        click.option("--max-probes", type=click.IntRange(min=1), default=Budget().probes, show_default=True,
                     metavar="N", help="Forwards that finding what one model takes may need."),
        click.option("--max-seconds", type=click.FloatRange(min=0, min_open=True), default=Budget().seconds,
                     show_default=True, metavar="S", help="Seconds for all of them together."),
        click.option("--no-cache", is_flag=True, help="Find everything anew, and keep nothing of it."),
        click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True,
                     help="A table for people, or JSON as the whole of stdout."),
        click.option("--quiet", is_flag=True, help="Print the verdict and the findings alone."),
        click.option("--debug", is_flag=True, help="Show tracebacks, and what models print."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _modes(modes: tuple[Mode, ...], help: str) -> Callable[[Command], Command]:
    choice = click.Choice([str(mode) for mode in modes])
    return click.option("--mode", type=choice, default="sequential", show_default=True, help=help)


def _joining(command: Command) -> Command:
    options = (
        click.option("--merge", type=click.Choice([str(merge) for merge in Merge]), default="cat", show_default=True,
                     help="In parallel: what becomes of the outputs."),
        click.option("--dim", type=int, default=1, show_default=True, help="In parallel: the axis of cat and stack."),
        click.option("--strict", is_flag=True, help="Ask for every size that the first model admits, not the example."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    name="composecli", epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="composecli")
def main() -> None:
    """Does the second model accept what the first one produces? And if so: one file that does both.

    A MODEL is a file: a TorchScript archive, a torch.export archive (.pt2), a pickled nn.Module; or
    package.module:factory@weights (also file.py:factory@weights).

    SECURITY: Model files are programs. They are scanned before anything in them runs, and what is not on
    the list of what only computes is refused by name; --trust FILE and --allow-op lift that. Models run
    in a child that is confined as the system allows: with Landlock on Linux it writes no file but the
    output and makes no connection; elsewhere the scan and the limits of time and memory are all there
    is. A trusted file, and a factory, runs with all that you may do.
    """


@main.command(
    "check", epilog=EXIT_CODES, short_help="Does each model accept what the one before gives?"
)
@click.argument("models", nargs=-1, required=True, metavar="A B [C ...]")
@_modes(
    tuple(Mode),
    "One after the other, beside each other on the same input, or each against each other.",
)
@_joining
@_common
def check_command(models: tuple[str, ...], **words: Any) -> NoReturn:
    """Say whether each model accepts what the one before it produces (in parallel: whether they merge; with pairs:
    which of them accepts what which other produces)."""
    _two_or_more(models)
    _refuse_idle_trust(words, models)
    if words["mode"] == Mode.PAIRS and words["inputs"]:
        raise click.UsageError(
            "--input states what the first model takes; with --mode pairs each of them is the first"
        )
    request = _check_request(models, words, BridgeMode.NONE)

    def work(worker: Worker, tell: Callable[[str], None]) -> Report:
        from composecli.commands.check import check

        return check(request, worker, tell)

    console.run(work, replace(_screen(words, models), workers=_workers(request)))


@main.command(
    "join", epilog=EXIT_CODES, short_help="Write one verified TorchScript file that does both."
)
@click.argument("models", nargs=-1, required=True, metavar="A B [C ...]")
@_modes(
    (Mode.SEQUENTIAL, Mode.PARALLEL), "One after the other, or beside each other on the same input."
)
@click.option("-o", "--output", required=True, metavar="OUT", help="The TorchScript file to write.")
@click.option("--bridge", type=click.Choice([str(mode) for mode in BridgeMode]), default="none", show_default=True,
              help="Put nothing between, steps without parameters, or an untrained linear layer too.")  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the generated layers.",
)
@click.option("--force", is_flag=True, help="Replace the output where it exists.")
@_joining
@_common
def join_command(
    models: tuple[str, ...], output: str, bridge: str, seed: int, force: bool, **words: Any
) -> NoReturn:
    """Write one TorchScript module that does what the models do, verified against running them by hand."""
    _two_or_more(models)
    _refuse_idle_trust(words, models)
    request = JoinRequest(_check_request(models, words, BridgeMode(bridge)), output, seed, force)

    def work(worker: Worker, tell: Callable[[str], None]) -> Report:
        from composecli.commands.join import join

        return join(request, worker, tell)

    console.run(work, _screen(words, models))


@main.command("inspect", epilog=EXIT_CODES, short_help="What does a model take and give?")
@click.argument("model", metavar="MODEL")
@_common
def inspect_command(model: str, **words: Any) -> NoReturn:
    """Show what a model takes and gives, with the evidence, its layers, and what ties it to a device."""
    _refuse_idle_trust(words, (model,))
    request = InspectRequest(model, _options(words))

    def work(worker: Worker, tell: Callable[[str], None]) -> Report:
        from composecli.commands.inspect import inspect

        return inspect(request, worker, tell)

    console.run(work, _screen(words, (model,)))


@main.command("explain", short_help="The page of help for a rule, as in explain CC203.")
@click.argument("rule", required=False, metavar="[CODE]")
def explain_command(rule: str | None) -> None:
    """Explain a rule by its code or name (CC203, size-differs); without one, list them all."""
    if rule is None:
        click.echo("\n".join(listing()))
        return
    found = find(rule)
    if found is None:
        raise click.BadParameter(
            f"no rule is called {rule}; 'composecli explain' lists them", param_hint="CODE"
        )
    click.echo(page(found), nl=False)


@main.command("schema", short_help="The JSON Schema of --format json.")
def schema_command() -> None:
    """Print the JSON Schema that every `--format json` report follows, and the provenance of joined files."""
    from composecli.report.json_v1 import schema_text

    click.echo(schema_text(), nl=False)


@main.group("cache", short_help="What was found of files before.")
def cache_group() -> None:
    """What was found of files before is kept, by their content, and answers the next command that asks for it."""


@cache_group.command("clear", short_help="Forget all of it.")
def cache_clear() -> None:
    """Forget what was found of files before."""
    from composecli.workers.cache_store import Cache, default_folder

    folder = default_folder()
    click.echo(f"removed {Cache(folder).clear()} entries from {folder}")


def _two_or_more(models: tuple[str, ...]) -> None:
    if len(models) < 2:
        raise click.UsageError(
            "two models or more are needed; 'composecli inspect MODEL' looks at one"
        )


def _check_request(
    models: tuple[str, ...], words: dict[str, Any], bridge: BridgeMode
) -> CheckRequest:
    return CheckRequest(
        models,
        Mode(words["mode"]),
        words["strict"],
        Merge(words["merge"]),
        words["dim"],
        bridge,
        _options(words),
    )


def _options(words: dict[str, Any]) -> Options:
    return Options(
        device=words["device"][0],
        inputs=tuple(parsed for parsed, _ in words["inputs"]),
        selections=tuple(parsed for parsed, _ in words["selections"]),
        training=Training(words["training"]),
        key=words["key"],
        trust=tuple(parsed for parsed, _ in words["trusts"]),
        allowed_ops=tuple(parsed for parsed, _ in words["allowed_ops"]),
        budget=Budget(words["max_probes"], words["max_seconds"]),
        limits=Limits(
            Isolation(words["isolation"]), (words["max_memory"] or (None,))[0], words["timeout"]
        ),
        words=_repeated(words),
    )


def _repeated(words: dict[str, Any]) -> tuple[str, ...]:
    """The options that a suggested command has to say again to mean the same models and inputs."""
    again = [word for _, text in words["inputs"] for word in ("--input", text)]
    again += [word for _, text in words["selections"] for word in ("--select", text)]
    again += ["--training", words["training"]] if words["training"] != "saved" else []
    again += ["--key", words["key"]] if words["key"] else []
    again += ["--device", words["device"][1]] if words["device"][1] != "cpu" else []
    again += [word for _, text in words["trusts"] for word in ("--trust", text)]
    again += [word for _, text in words["allowed_ops"] for word in ("--allow-op", text)]
    return tuple(again)


def _refuse_idle_trust(words: dict[str, Any], models: tuple[str, ...]) -> None:
    """A file that is vouched for and is no model of this command is a mistake that nobody would notice."""
    paths = [model if os.path.exists(model) else parse_reference(model).path for model in models]
    for trust, text in words["trusts"]:
        if not any(trust.covers(path) for path in paths):
            raise click.BadParameter(f"{text} is none of the models", param_hint="--trust")


def _workers(request: CheckRequest) -> int:
    """How many workers a command is worth: models that are judged against each other keep several busy."""
    if request.mode is not Mode.PAIRS or request.options.device.startswith("cuda"):
        return 1
    from composecli.workers.pool import pool_size

    return pool_size(len(request.models))


def _screen(words: dict[str, Any], models: tuple[str, ...]) -> OutputOptions:
    made = any(
        isinstance(parse_reference(model), FactoryReference)
        for model in models
        if not os.path.exists(model)
    )
    untrusted = not words["trusts"] and not made
    return OutputOptions(
        words["form"],
        words["quiet"],
        words["debug"],
        words["timeout"],
        untrusted,
        models,
        not words["no_cache"],
    )


def run() -> NoReturn:
    """The entry point."""
    try:
        _run()
    finally:
        # All is unwound: what Python does in leaving has nobody to tell of a signal.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


def _run() -> NoReturn:
    """Exit code 1 means not compatible and nothing else: neither Ctrl-C nor a bug of ours is that."""
    try:
        sys.exit(main(prog_name="composecli", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        click.echo(
            f"error[{OUR_BUG}]: a bug in composecli\n  note: {type(error).__name__}: {error}",
            err=True,
        )
        sys.exit(BUG)
