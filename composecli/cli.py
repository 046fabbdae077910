"""The command line: arguments in, a request out, an exit code back.

Neither torch nor rich is imported here, so that help and errors come at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import click
from click.core import ParameterSource

from composecli import __version__, console, streams
from composecli.commands.references import locate
from composecli.commands.requests import (
    DEFAULT_DIM,
    DEFAULT_SECONDS,
    MAX_SEED,
    CheckRequest,
    InspectRequest,
    JoinRequest,
    Limits,
    Options,
    parse_device,
    parse_memory,
    parse_seconds,
    parse_selection,
)
from composecli.commands.results import ProblemReport, Report
from composecli.commands.trust import (
    Trust,
    parse_import,
    parse_library,
    parse_op,
    parse_trust,
    unused_trust,
)
from composecli.completion import (
    complete_device,
    complete_file,
    complete_format,
    complete_input,
    complete_output,
    complete_rule,
)
from composecli.console import OutputOptions
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.command_line import file_word, one_word
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.input_spec import parse_input
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule, Severity
from composecli.defaults import read_defaults
from composecli.early_signals import asks_for
from composecli.files.library_policies import LIBRARIES
from composecli.inference.prober import Budget
from composecli.report.explain import find_rule, format_rule, list_rules
from composecli.report.formats import (
    DEFAULT_FORMAT,
    FORMATS,
    Output,
    complete_outputs,
    parse_output,
)
from composecli.report.report_file import why_not_writable
from composecli.workers.protocol import Isolation, Training, Worker

if TYPE_CHECKING:
    from composecli.commands.suite import SuiteRequest

# The commands whose options have defaults in the environment or in pyproject.toml.
WITH_DEFAULTS = ("check", "join", "inspect", "suite")
# A glob may name any number of files; each of them is loaded and run.
MAX_MODELS = 1000
EXIT_CODES = """\b
Exit codes, the same in every format:
  0  compatible (join: written and verified), even if there are warnings
  1  not compatible (or bridgeable, unless you asked for the bridge);
     with --fail-on warning, also compatible with a warning
  2  usage error, or an output that exists
  3  could not tell: unreadable, refused as unsafe, crashed, unknown
  70 a bug in composecli
"""

Command = TypeVar("Command", bound=Callable[..., Any])
Value = TypeVar("Value")
# The values of a command's parameters, by name, as click passes them.
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parsed(Generic[Value]):
    """The value of an option, and the text that it was parsed from."""

    value: Value
    text: str


class ParsedType(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """The type of an option that a function parses.

    The function raises a ValueError, whose message is written for users, if the text is wrong.
    """

    def __init__(self, name: str, parse: Callable[[str], object]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text with its value."""
        try:
            return Parsed(self._parse(value), value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Seconds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """The type of a time limit."""

    name = "S"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number of seconds."""
        try:
            return parse_seconds(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _choice(members: Iterable[StrEnum]) -> click.ParamType:  # type: ignore[type-arg,unused-ignore]
    """Return a parameter type that accepts the values of these members."""
    return click.Choice([str(member) for member in members])


class Schema(StrEnum):
    """A kind of JSON that has a schema."""

    REPORT = "report"
    CONTRACT = "contract"
    SUITE = "suite"


class RepeatedOption(click.Option):
    """An option that a suggested command has to repeat, because it affects how models run."""


DEVICE = click.option(
    "--device",
    cls=RepeatedOption,
    type=ParsedType("DEVICE", parse_device),
    default="cpu",
    metavar="DEVICE",
    shell_complete=complete_device,
    show_default=True,
    help="Device for probes: cpu, cuda, cuda:1, or meta (confirmed on the CPU).",
)
INPUT = click.option(
    "--input",
    "inputs",
    cls=RepeatedOption,
    type=ParsedType("SPEC", parse_input),
    multiple=True,
    metavar="SPEC",
    shell_complete=complete_input,
    help="An input of the first model: 'float32[N,3,224,224]', 1,3,224,224, ids=int64[1,16], "
    "rate:=16000, or @sample.pt; of a later model: '2:ids=int64[N,T]'. Repeat for each input.",
)
SELECT = click.option(
    "--select",
    "selections",
    cls=RepeatedOption,
    type=ParsedType("PORT", parse_selection),
    multiple=True,
    metavar="PORT",
    shell_complete=complete_output,
    help="Use one of several outputs: logits, '[0]'; 2:logits for the second model.",
)
TRAINING = click.option(
    "--training",
    cls=RepeatedOption,
    type=_choice(Training),
    default="saved",
    show_default=True,
    help="Run models as they were saved, or put them into eval or train mode.",
)
KEY = click.option(
    "--key",
    cls=RepeatedOption,
    metavar="NAME",
    help="The entry of a checkpoint that holds the weights or the module.",
)
TRUST = click.option(
    "--trust",
    "trusts",
    cls=RepeatedOption,
    type=ParsedType("FILE", parse_trust),
    multiple=True,
    metavar="FILE",
    shell_complete=complete_file,
    help="Allow this model file to run arbitrary code. Repeatable. "
    "FILE@sha256:HEX pins the content.",
)
TRUST_CLASSES = click.option(
    "--trust-classes",
    "libraries",
    cls=RepeatedOption,
    type=ParsedType("LIBRARY", parse_library),
    multiple=True,
    metavar="LIBRARY",
    help="Also load pickled modules that consist of the classes of this installed library: "
    f"{', '.join(LIBRARIES[:-1])} or {LIBRARIES[-1]}. The library is imported. Repeatable.",
)
ALLOW_OP = click.option(
    "--allow-op",
    "allowed_ops",
    cls=RepeatedOption,
    type=ParsedType("NS::OP", parse_op),
    multiple=True,
    metavar="NS::OP",
    help="Also allow this op in files that are not trusted.",
)
IMPORT = click.option(
    "--import",
    "imports",
    cls=RepeatedOption,
    type=ParsedType("NAME", parse_import),
    multiple=True,
    metavar="NAME",
    help="Import this Python module before the models: a name, or a file.py. Its code runs. A "
    "folder is searched for modules. Repeatable.",
)
TIMEOUT = click.option(
    "--timeout",
    cls=RepeatedOption,
    type=Seconds(),
    default=DEFAULT_SECONDS,
    show_default=True,
    metavar="S",
    help="Time limit for loading a model and for each forward, in seconds.",
)
MAX_MEMORY = click.option(
    "--max-memory",
    cls=RepeatedOption,
    type=ParsedType("SIZE", parse_memory),
    metavar="SIZE",
    help="Memory limit for models: 8G, 500M.  [default: 80 % of the machine's]",
)
ISOLATION = click.option(
    "--isolation",
    cls=RepeatedOption,
    type=_choice(Isolation),
    default="best",
    show_default=True,
    help="Sandbox for the process that runs models: required, best effort, or none.",
)
MAX_PROBES = click.option(
    "--max-probes",
    cls=RepeatedOption,
    type=click.IntRange(min=1),
    default=Budget().probes,
    show_default=True,
    metavar="N",
    help="Limit on the forwards that infer one model's contract.",
)
MAX_SECONDS = click.option(
    "--max-seconds",
    cls=RepeatedOption,
    type=Seconds(),
    default=Budget().seconds,
    show_default=True,
    metavar="S",
    help="Time limit for all of these forwards, in seconds; one that takes longer is stopped.",
)
NO_CACHE = click.option("--no-cache", is_flag=True, help="Do not read or write the cache.")
FORMAT = click.option(
    "--format",
    "outputs",
    type=ParsedType("FORMAT", parse_output),
    multiple=True,
    metavar="FORMAT[=FILE]",
    shell_complete=complete_format,
    help=f"{', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}: to stdout, or with =FILE to a "
    f"file. Repeatable.  [default: {DEFAULT_FORMAT}]",
)
QUIET = click.option("--quiet", is_flag=True, help="Print only the verdict and the findings.")
DEBUG = click.option("--debug", is_flag=True, help="Also show tracebacks and what models print.")

MERGE = click.option(
    "--merge",
    type=_choice(Merge),
    default="cat",
    show_default=True,
    help="In parallel: how to merge the outputs.",
)
DIM = click.option(
    "--dim",
    type=int,
    default=DEFAULT_DIM,
    show_default=True,
    help="In parallel: the axis for cat and stack.",
)
STRICT = click.option(
    "--strict/--no-strict",
    default=False,
    help="Require a fit at every size that the first model accepts, not only under a condition.",
)
FAIL_ON = click.option(
    "--fail-on",
    type=click.Choice([str(Severity.ERROR), str(Severity.WARNING)]),
    default=str(Severity.ERROR),
    show_default=True,
    help="Exit with code 1 on errors alone, or on warnings too.",
)

MODELS = click.argument(
    "models", nargs=-1, required=True, metavar="A B [C ...]", shell_complete=complete_file
)
OUTPUT = click.option(
    "-o",
    "--output",
    required=True,
    metavar="OUT",
    shell_complete=complete_file,
    help="The TorchScript file to write.",
)
WRITE_CONTRACT = click.option(
    "--write-contract",
    "contract_file",
    metavar="FILE",
    shell_complete=complete_file,
    help="Write the contract as JSON, such as to a.contract.json. The file can stand for the model "
    "in 'composecli check'.",
)
BRIDGE = click.option(
    "--bridge",
    type=_choice(BridgeMode),
    default="none",
    show_default=True,
    help="Allow no steps, steps without parameters, or an untrained linear layer too.",
)
CHANGED_SINCE = click.option(
    "--changed-since",
    metavar="REF",
    help="Run only the checks of which a file has changed since this git commit, branch or tag, "
    "and those that git cannot tell.",
)
SEED = click.option(
    "--seed",
    type=click.IntRange(0, MAX_SEED),
    default=0,
    show_default=True,
    help="Random seed of the generated layers.",
)
FORCE = click.option("--force", is_flag=True, help="Replace the output file if it exists.")

OF_SEVERAL_MODELS = (MERGE, DIM, STRICT, FAIL_ON)
OF_EVERY_COMMAND = (
    DEVICE, INPUT, SELECT, TRAINING, KEY, TRUST, TRUST_CLASSES, ALLOW_OP, IMPORT, TIMEOUT,
    MAX_MEMORY, ISOLATION, MAX_PROBES, MAX_SECONDS, NO_CACHE, FORMAT, QUIET, DEBUG,
)  # fmt: skip
# A suite file states the other options, for each of its models and checks.
OF_A_SUITE = (
    TRUST, TRUST_CLASSES, ALLOW_OP, IMPORT, TIMEOUT, MAX_MEMORY, ISOLATION, NO_CACHE, FORMAT,
    QUIET, DEBUG,
)  # fmt: skip
_NOT_OF_A_SUITE = {
    "device": Parsed("cpu", "cpu"),
    "inputs": (),
    "selections": (),
    "training": str(Training.SAVED),
    "key": None,
    "max_probes": Budget().probes,
    "max_seconds": Budget().seconds,
}


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Return a decorator that adds these options, listed in this order by --help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _mode_option(modes: tuple[Mode, ...], help: str) -> Callable[[Command], Command]:
    """Return the decorator that adds `--mode`, limited to the modes of a command."""
    choice = _choice(modes)
    return click.option("--mode", type=choice, default="sequential", show_default=True, help=help)


class CommandGroup(click.Group):
    """The commands. A usage error is a JSON report if the command line asks for JSON."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **named: Any) -> Any:
        """Run a command line, and exit with its exit code."""
        words = list(args if args is not None else sys.argv[1:])
        named["standalone_mode"] = False
        try:
            _refuse_options_that_are_files(words)
            if words and words[0] in WITH_DEFAULTS and not {"-h", "--help"} & set(words):
                named["default_map"] = {words[0]: _defaults()}
            return super().main(words, *more, **named)
        except click.ClickException as error:
            if asks_for(words, "json"):
                console.print_and_exit(_usage_report(error), (Output("json"),))
            _make_harmless(error)
            error.show()
            sys.exit(Rule.USAGE.exit_code)


def _defaults() -> Values:
    """Return the defaults of options from the environment and from pyproject.toml.

    Raises:
        click.UsageError: if they have a mistake.
    """
    try:
        return read_defaults(os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _refuse_options_that_are_files(words: list[str]) -> None:
    """Refuse an option that is the name of a file here: a glob such as `*` may have made it of one.

    In a folder of a stranger, a file called `--trust=evil.pt` would trust another one.

    Raises:
        click.UsageError: if a word before `--` is both.
    """
    for word in words:
        if word == "--" and not os.path.lexists(word):
            break
        if len(word) > 1 and word.startswith("-") and os.path.lexists(word):
            raise click.UsageError(
                f"{word} is the name of a file here, and an option: "
                f"write {one_word(file_word(word))} for the file, or remove it for the option"
            )


def _make_harmless(error: click.ClickException) -> None:
    """Replace the control characters in the message of an error, which the name of a file may have.

    Click formats some messages when it shows them.
    """
    from composecli.report.harmless import sanitize

    vars(error)["message"] = sanitize(error.message)


def _usage_report(error: click.ClickException) -> ProblemReport:
    """Return the report of a wrong command line, with the command that explains it."""
    help = "composecli --help"
    if isinstance(error, click.UsageError) and error.ctx is not None:
        help = f"{error.ctx.command_path} --help"
    return ProblemReport(Problem(Rule.USAGE, error.format_message(), help=(help,)))


@click.group(
    cls=CommandGroup,
    name="composecli",
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="composecli")
def main() -> None:
    """Check whether one PyTorch model accepts another's output, and join both into one file.

    A MODEL is a file: a TorchScript archive, a torch.export archive (.pt2), a pickled nn.Module; or
    package.module:factory@weights (also file.py:Class@weights, 'file.py:Class(10)', and a pickled
    module as the weights of its class). What exists as a path is a file, and never a factory,
    whatever its name. A word that begins with - and is the name of a file in the current folder is
    refused: a glob such as *.pt may have made it.

    SECURITY: Model files are programs. They are scanned before anything in them runs, and anything
    that is not on the list of ops that only compute is refused by name; --trust FILE and --allow-op
    override this. Models run in a child process that is sandboxed as far as the system allows: with
    Landlock on Linux it reads only what it needs, writes only the output and opens no connections;
    elsewhere the scan and the limits on time and memory are the only protection. A trusted file,
    and a factory, runs with your full permissions.
    """


@main.command(
    "check",
    epilog=EXIT_CODES,
    short_help="Check whether each model accepts the previous one's output.",
)
@MODELS
@_mode_option(
    tuple(Mode),
    "Models in a chain, in parallel on the same input, or in every ordered pair.",
)
@_options(*OF_SEVERAL_MODELS, *OF_EVERY_COMMAND)
def check_command(models: tuple[str, ...], **values: Any) -> NoReturn:
    """Check whether each model accepts the output of the previous one.

    In parallel mode: whether all models accept the same input and their outputs can be merged. With
    pairs: whether each model accepts the output of each other model. A factory alone,
    net.py:Net@weights.pt: whether the weights fit its module.
    """
    is_about_weights = len(models) == 1 and _has_weights(models[0])
    if not is_about_weights:
        _refuse_number_of_models(models)
    _refuse_unused_trust(values["trusts"], models)
    _refuse_input_of_pairs(values)
    request = _check_request(models, values, BridgeMode.NONE)

    def work(worker: Worker, progress: Callable[[str], None]) -> Report:
        if is_about_weights:
            from composecli.commands.check_weights import check_weights

            return check_weights(request, worker, progress)
        from composecli.commands.check import check

        return check(request, worker, progress)

    _run_command(work, replace(_output_options(values, models), workers=_workers(request)))


@main.command(
    "join", epilog=EXIT_CODES, short_help="Write one verified TorchScript file that does both."
)
@MODELS
@_mode_option(
    (Mode.SEQUENTIAL, Mode.PARALLEL), "Models in a chain, or in parallel on the same input."
)
@_options(OUTPUT, BRIDGE, SEED, FORCE, *OF_SEVERAL_MODELS, *OF_EVERY_COMMAND)
def join_command(models: tuple[str, ...], **values: Any) -> NoReturn:
    """Write one TorchScript module that runs the models, and verify it against them."""
    _refuse_number_of_models(models)
    _refuse_unused_trust(values["trusts"], models)
    check_request = _check_request(models, values, BridgeMode(values["bridge"]))
    request = JoinRequest(check_request, values["output"], values["seed"], values["force"])

    def work(worker: Worker, progress: Callable[[str], None]) -> Report:
        from composecli.commands.join import join

        return join(request, worker, progress)

    _run_command(work, _output_options(values, models))


@main.command("inspect", epilog=EXIT_CODES, short_help="Show what a model accepts and returns.")
@click.argument("model", metavar="MODEL", shell_complete=complete_file)
@_options(WRITE_CONTRACT, FORCE, *OF_EVERY_COMMAND)
def inspect_command(model: str, **values: Any) -> NoReturn:
    """Show what a model accepts and returns, with evidence, layers and device dependencies."""
    _refuse_unused_trust(values["trusts"], (model,))
    options = _common_options(values)
    request = InspectRequest(model, options, values["contract_file"], values["force"])

    def work(worker: Worker, progress: Callable[[str], None]) -> Report:
        from composecli.commands.inspect import inspect

        return inspect(request, worker, progress)

    _run_command(work, _output_options(values, (model,)))


@main.command("suite", epilog=EXIT_CODES, short_help="Run the checks of a TOML file.")
@click.argument("suite", metavar="FILE.toml", shell_complete=complete_file)
@_options(CHANGED_SINCE, *OF_A_SUITE)
def suite_command(suite: str, changed_since: str | None, **values: Any) -> NoReturn:
    """Run all checks of a suite file, whose models are opened and examined once.

    The file names models, and pairs, chains, parallel models, checkpoint fits and contracts that
    are expected of them. A check that cannot be attempted does not end the others. The code of a
    factory in the file runs only with --trust FILE.toml. 'composecli schema suite' prints the JSON
    Schema for editors.
    """
    from composecli.workers.pool import pool_size

    try:
        request = _suite_request(suite, changed_since, values)
    except CouldNotAttempt as failure:
        console.print_and_exit(ProblemReport(failure.problem), _outputs(values, (suite,)))

    def work(worker: Worker, progress: Callable[[str], None]) -> Report:
        from composecli.commands.suite import run_suite

        return run_suite(request, worker, progress)

    workers = 1
    if not request.options.device.startswith("cuda"):
        workers = pool_size(len(request.models))
    output = _output_options(values, request.models)
    _outputs(values, (suite, *request.models, *request.files))
    # A factory of the file runs only if the file is trusted.
    trusts_nothing = not values["trusts"] and not values["imports"]
    _run_command(work, replace(output, untrusted=trusts_nothing, workers=workers))


def _suite_request(suite: str, changed_since: str | None, values: Values) -> SuiteRequest:
    """Read a suite file, and collect the options of the command.

    Raises:
        CouldNotAttempt: if the file has a mistake.
    """
    from composecli.commands.suite import plan_suite

    options = _common_options({**_NOT_OF_A_SUITE, **values})
    request = plan_suite(suite, options, changed_since)
    _refuse_unused_trust(values["trusts"], (suite, *request.models))
    return request


@main.command("explain", short_help="Show the help page of a rule, such as CC203.")
@click.argument("rule", required=False, metavar="[CODE]", shell_complete=complete_rule)
def explain_command(rule: str | None) -> None:
    """Explain a rule by its code or name (CC203, size-differs); without one, list them all."""
    if rule is None:
        click.echo("\n".join(list_rules()))
        return
    found = find_rule(rule)
    if found is None:
        message = f"there is no rule {rule}; 'composecli explain' lists the rules"
        raise click.BadParameter(message, param_hint="CODE")
    click.echo(format_rule(found), nl=False)


@main.command("schema", short_help="Print the JSON Schema of reports, contracts or suites.")
@click.argument("name", type=_choice(Schema), default=str(Schema.REPORT))
def schema_command(name: str) -> None:
    """Print the JSON Schema of one kind of JSON: that of `--format json` reports, with the
    provenance of joined files, or that of contract files or of suite files."""
    if name == Schema.CONTRACT:
        from composecli.files.contract_file import schema_text as contract_schema

        click.echo(contract_schema(), nl=False)
        return
    if name == Schema.SUITE:
        from composecli.files.suite_file import schema_text as suite_schema

        click.echo(suite_schema(), nl=False)
        return
    from composecli.report.json_v1 import schema_text

    click.echo(schema_text(), nl=False)


@main.group("cache", short_help="Manage cached results.")
def cache_group() -> None:
    """Manage the cache of results, which is keyed by the content of files."""


@cache_group.command("clear", short_help="Delete all cached results.")
def cache_clear() -> None:
    """Delete all cached results."""
    from composecli.workers.cache_store import Cache, default_folder

    folder = default_folder()
    click.echo(f"removed {Cache(folder).clear()} entries from {folder}")


def _has_weights(model: str) -> bool:
    """Return whether a model is a factory with a file of weights."""
    reference = locate(model)
    return isinstance(reference, FactoryReference) and reference.path is not None


def _refuse_number_of_models(models: tuple[str, ...]) -> None:
    """Refuse a command line with fewer models than one seam has, or with more than can be run."""
    if len(models) < 2:
        raise click.UsageError(
            "at least two models are needed; 'composecli inspect MODEL' shows one"
        )
    if len(models) > MAX_MODELS:
        raise click.UsageError(f"at most {MAX_MODELS:,} models are checked, not {len(models):,}")


def _refuse_unused_trust(trusts: tuple[Parsed[Trust], ...], models: tuple[str, ...]) -> None:
    """Refuse a trusted file that is not a model of the command: its name may be mistyped."""
    if not trusts:
        return
    located = [locate(model).path for model in models]
    paths = [path for path in located if path is not None]
    unused = unused_trust([trust.value for trust in trusts], paths)
    for trust in trusts:
        if trust.value == unused:
            raise click.BadParameter(f"{trust.text} is not one of the models", param_hint="--trust")


def _refuse_input_of_pairs(values: Values) -> None:
    """Refuse `--input` in pairs mode, where no model is the first one."""
    if values["mode"] == Mode.PAIRS and values["inputs"]:
        raise click.UsageError(
            "--input applies to the first model; with --mode pairs every model comes first"
        )


def _refuse_merge_elsewhere(mode: str) -> None:
    """Refuse `--merge` and `--dim` on a command line that merges no outputs."""
    context = click.get_current_context()
    for name in ("merge", "dim"):
        is_stated = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_stated and mode != Mode.PARALLEL:
            raise click.UsageError(f"--{name} applies to --mode parallel")


def _check_request(models: tuple[str, ...], values: Values, bridge: BridgeMode) -> CheckRequest:
    """Collect the options of commands that judge several models."""
    _refuse_merge_elsewhere(values["mode"])
    return CheckRequest(
        models,
        Mode(values["mode"]),
        values["strict"],
        Merge(values["merge"]),
        values["dim"],
        bridge,
        _common_options(values),
        fail_on=Severity(values["fail_on"]),
    )


def _common_options(values: Values) -> Options:
    """Collect the options that every command on models has."""
    budget = Budget(values["max_probes"], values["max_seconds"])
    return Options(
        device=values["device"].value,
        inputs=_parsed_values(values["inputs"]),
        selections=_parsed_values(values["selections"]),
        training=Training(values["training"]),
        key=values["key"],
        trust=_parsed_values(values["trusts"]),
        allowed_ops=_parsed_values(values["allowed_ops"]),
        imports=_parsed_values(values["imports"]),
        libraries=_parsed_values(values["libraries"]),
        budget=budget,
        limits=_limits(values),
        words=_repeated_words(values),
    )


def _parsed_values(items: tuple[Parsed[Value], ...]) -> tuple[Value, ...]:
    """Drop the texts that the values were parsed from."""
    return tuple(item.value for item in items)


def _limits(values: Values) -> Limits:
    """Collect the limits of the worker; without `--max-memory`, memory is None."""
    memory = None
    if values["max_memory"] is not None:
        memory = values["max_memory"].value
    isolation = Isolation(values["isolation"])
    return Limits(isolation, memory, values["timeout"])


def _repeated_words(values: Values) -> tuple[str, ...]:
    """Return the options that a suggested command has to repeat, as words of a command line."""
    words = list[str]()
    for parameter in click.get_current_context().command.params:
        if not isinstance(parameter, RepeatedOption):
            continue
        assert parameter.name is not None
        defaults = _texts(parameter.default)
        for text in _texts(values[parameter.name]):
            if text not in defaults:
                words += [parameter.opts[0], text]
    return tuple(words)


def _texts(value: Any) -> list[str]:
    """Return the text of an option, once for each time that it was given."""
    match value:
        case None:
            return []
        case tuple():
            return [item.text for item in value]
        case Parsed(_, text):
            return [text]
        case float():
            return [str(value).removesuffix(".0")]
        case _:
            return [str(value)]


def _workers(request: CheckRequest) -> int:
    """Return the number of workers to start: several if independent pairs keep them busy."""
    if request.mode is not Mode.PAIRS:
        return 1
    if request.options.device.startswith("cuda"):
        return 1
    from composecli.workers.pool import pool_size

    return pool_size(len(request.models))


def _output_options(values: Values, models: tuple[str, ...]) -> OutputOptions:
    """Collect the options that decide how a command runs and prints."""
    runs_own_code = bool(values["imports"]) or _has_factory(models)
    trusts_nothing = not values["trusts"] and not runs_own_code
    return OutputOptions(
        _outputs(values, models),
        values["quiet"],
        values["debug"],
        values["timeout"],
        untrusted=trusts_nothing,
        models=models,
        use_cache=not values["no_cache"] and not values["imports"] and not values["libraries"],
    )


def _outputs(values: Values, models: tuple[str, ...]) -> tuple[Output, ...]:
    """Return where the report goes, and in which formats.

    Raises:
        click.UsageError: if two reports go to one place, or one cannot go to its file.
    """
    try:
        outputs = complete_outputs(_parsed_values(values["outputs"]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    files = list(_files_of(values, models))
    for output in outputs:
        if output.path is None:
            continue
        reason = why_not_writable(output.path)
        if any(_is_same_file(output.path, file) for file in files):
            reason = "it is a file of this command"
        if reason is not None:
            raise click.UsageError(f"no report can be written to {output.path}: {reason}")
    return outputs


def _files_of(values: Values, models: tuple[str, ...]) -> Iterator[str]:
    """Yield the files that a command reads or writes, which no report may replace."""
    for model in models:
        reference = locate(model)
        if isinstance(reference, FactoryReference):
            yield reference.module
        if reference.path is not None:
            yield reference.path
    for given in values.get("inputs", ()):
        yield given.text.rpartition("@")[2]
    yield from filter(None, (values.get("output"), values.get("contract_file")))


def _is_same_file(path: str, other: str) -> bool:
    """Return whether two paths lead to the same file, which need not exist."""
    return os.path.realpath(path) == os.path.realpath(other)


def _has_factory(models: tuple[str, ...]) -> bool:
    """Return whether a model is a factory, which runs the user's code."""
    references = (locate(model) for model in models)
    return any(isinstance(reference, FactoryReference) for reference in references)


def _run_command(work: console.Work, options: OutputOptions) -> NoReturn:
    """Run the work of a command at the console."""
    # A caller of `main` may pass another way to start workers as the object of the context.
    console.run(work, options, click.get_current_context().obj)


def run() -> NoReturn:
    """Run the command line of this process, and exit with its exit code."""
    try:
        _run()
    except SystemExit as end:
        if sys.flags.inspect and not sys.flags.interactive:
            _leave(end)
        raise
    finally:
        # Everything is cleaned up: a signal that comes while Python exits should end it silently.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)


def _leave(end: SystemExit) -> NoReturn:
    """Exit at once: with PYTHONINSPECT, Python would print a traceback and exit with 1."""
    code = end.code
    if not isinstance(code, int):
        code = 0
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _run() -> NoReturn:
    """Run the command line, and turn every exception into a message and an exit code."""
    if not streams.prepare():
        problem = console.stdout_problem("stdout is closed")
        _exit_with(problem)
    # Exit code 1 means not compatible, so neither Ctrl-C nor a bug may exit with it.
    try:
        result = main(prog_name="composecli")
        sys.exit(result or 0)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
        sys.exit(Rule.INTERRUPTED.exit_code)
    except BrokenPipeError:
        streams.discard(sys.stdout)
        sys.exit(0)
    except OSError as error:
        streams.discard(sys.stdout)
        _exit_with(console.could_not_print(error))
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exception(error)
        note = f"{type(error).__name__}: {error}"
        _exit_with(Problem(Rule.A_BUG_OF_OURS, "a bug in composecli", notes=(note,)))


def _exit_with(problem: Problem) -> NoReturn:
    """Print a problem, without any library, and exit with its exit code."""
    sys.stderr.write(f"{problem}\n")
    sys.exit(problem.rule.exit_code)
