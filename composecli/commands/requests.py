"""Requests: a command with its options, as data that does not depend on the command line."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Protocol

from composecli.commands.trust import Trust
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.command_line import (
    PROGRAM,
    command_line,
    file_word,
    option_words,
    pairs_of,
)
from composecli.core.input_spec import Declared
from composecli.core.limits import MAX_DIGITS, read_integer
from composecli.core.rules import Severity
from composecli.inference.prober import Budget
from composecli.workers.protocol import Isolation, Training

DEFAULT_SECONDS = 300.0
DEFAULT_DIM = 1
# About three years. Timers of the system overflow at about a hundred times that.
MAX_SECONDS = 10**8
MAX_BYTES = 2**62
# Random number generators of torch take 64 bits, with a sign.
MAX_SEED = 2**63 - 1
# The file that a suggested join writes, unless the user has named one.
_OUTPUT = "both.pt"
_SELECT = "--select"
_SELECTION = re.compile(r"(?:(?P<model>\d+):)?(?P<port>.+)", re.DOTALL)
_MEMORY = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[kMGT])?B?")
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_DEVICE = re.compile(r"cpu|meta|cuda(:\d{1,4})?")


@dataclass(frozen=True, slots=True)
class Selection:
    """One output of a model.

    `model` is its place in the command, from 1; None stands for every model that has such a port.
    """

    model: int | None
    port: str

    def __str__(self) -> str:
        if self.model is None:
            return self.port
        return f"{self.model}:{self.port}"


def parse_selection(text: str) -> Selection:
    """Parse `logits`, `[0]`, `out["logits"]`, or `2:logits` for the second model.

    Raises:
        ValueError: if no port is named.
    """
    match = _SELECTION.fullmatch(text)
    if match is None:
        raise ValueError("no port is named")
    model = None
    if match["model"]:
        model = read_integer(match["model"])
    return Selection(model, match["port"])


def parse_fail_on(text: str) -> Severity:
    """Return the least severity that makes a command fail.

    Raises:
        ValueError: if it is neither `error` nor `warning`.
    """
    if text not in (Severity.ERROR, Severity.WARNING):
        raise ValueError(f"{text} is not a severity to fail on (use error or warning)")
    return Severity(text)


def parse_device(text: str) -> str:
    """Return the name of a device: `cpu`, `cuda`, `cuda:1` or `meta`.

    Raises:
        ValueError: if it is none of these.
    """
    if not _DEVICE.fullmatch(text):
        raise ValueError(f"there is no device {text} (use cpu, cuda, cuda:1 or meta)")
    return text


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the process that runs models.

    `memory` is in bytes; `seconds` is the time that one request to the worker may take.
    """

    isolation: Isolation = Isolation.BEST
    memory: int | None = None
    seconds: float = DEFAULT_SECONDS


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as `8G` or `500M`.

    Raises:
        ValueError: if it is not a size, or is zero.
    """
    match = _MEMORY.fullmatch(text)
    size = 0
    if match is not None and len(text) <= MAX_DIGITS:
        unit = _BYTES[match["unit"] or ""]
        size = int(Decimal(match["number"]) * unit)
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"{text} is not a size of memory (8G, 500M)")
    return size


def parse_seconds(text: str) -> float:
    """Return a time limit in seconds.

    Raises:
        ValueError: if it is not a number, not above 0, or so large that it limits nothing.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # A comparison with nan is false.
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"{text} is not a time in seconds above 0 and up to {MAX_SECONDS:,}")
    return seconds


@dataclass(frozen=True, slots=True)
class Options:
    """The options that all commands share.

    `imports` are modules, files and folders of Python that the user vouches for, and `libraries`
    those whose module classes pickles may have. `words` are those
    options of the command line that a suggested command has to repeat, each with its value.
    """

    device: str = "cpu"
    inputs: tuple[Declared, ...] = ()
    selections: tuple[Selection, ...] = ()
    training: Training = Training.SAVED
    key: str | None = None
    trust: tuple[Trust, ...] = ()
    allowed_ops: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
    limits: Limits = field(default_factory=Limits)
    words: tuple[str, ...] = ()

    @property
    def inputs_of_first(self) -> tuple[Declared, ...]:
        """The inputs that are stated for the first model."""
        return tuple(declared for declared in self.inputs if declared.model == 1)

    def selecting(self, selections: tuple[Selection, ...]) -> Options:
        """Return the same options with these outputs selected, and no other."""
        words = list[str]()
        for option, value in pairs_of(self.words):
            if option != _SELECT:
                words += [option, value]
        for selection in selections:
            words += [_SELECT, str(selection)]
        return replace(self, selections=selections, words=tuple(words))

    @property
    def real_device(self) -> str:
        """The device whose forward decides: meta accepts calls that real kernels reject."""
        if self.device == "meta":
            return "cpu"
        return self.device


class ModelsRequest(Protocol):
    """A request about models: the command that the user ran, which a message may suggest anew."""

    @property
    def models(self) -> tuple[str, ...]:
        """The MODEL arguments."""

    @property
    def options(self) -> Options:
        """The options that all commands share."""

    def retry(self, models: tuple[str, ...], words: tuple[str, ...]) -> str:
        """Return the same command for other models, with `words` for those of the options."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """A request to check models. `bridge` is the kind of steps that a join may insert.

    `join_words` are the options of the join that the user ran; a check has none. `fail_on` is the
    least severity that makes the command fail: error or warning.
    """

    models: tuple[str, ...]
    mode: Mode = Mode.SEQUENTIAL
    strict: bool = False
    merge: Merge = Merge.CAT
    dim: int = DEFAULT_DIM
    bridge: BridgeMode = BridgeMode.NONE
    options: Options = field(default_factory=Options)
    join_words: tuple[str, ...] = ()
    fail_on: Severity = Severity.ERROR

    def again(self) -> str:
        """Return the command line of this request."""
        if not self.join_words:
            return self._command("check")
        bridge: tuple[str, ...] = ()
        if self.bridge is not BridgeMode.NONE:
            bridge = ("--bridge", str(self.bridge))
        return self._command("join", *bridge, *self.join_words)

    def bridged(self, bridge: BridgeMode) -> str:
        """Return the command line of the join of these models that may insert such steps."""
        join_words = self.join_words or ("-o", _OUTPUT)
        return self._command("join", "--bridge", str(bridge), *join_words)

    def _command(self, name: str, *more: str) -> str:
        """Return a command line for the same models and options, with more words."""
        words = [PROGRAM, name, *map(file_word, self.models)]
        if self.mode is not Mode.SEQUENTIAL:
            words += ["--mode", str(self.mode)]
        if self.mode is Mode.PARALLEL:
            if self.merge is not Merge.CAT:
                words += ["--merge", str(self.merge)]
            if self.dim != DEFAULT_DIM:
                words += ["--dim", str(self.dim)]
        words += option_words(pairs_of(self.options.words))
        if self.strict:
            words.append("--strict")
        if self.fail_on is not Severity.ERROR:
            words += ["--fail-on", str(self.fail_on)]
        return command_line([*words, *more])

    def retry(self, models: tuple[str, ...], words: tuple[str, ...]) -> str:
        """Return the same command for other models, with `words` for those of the options."""
        options = replace(self.options, words=words)
        return replace(self, models=models, options=options).again()


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A request to check models and write one file. `force` replaces an existing output."""

    check: CheckRequest
    output: str
    seed: int = 0
    force: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The MODEL arguments."""
        return self.check.models

    @property
    def options(self) -> Options:
        """The options that all commands share."""
        return self.check.options

    @property
    def judged(self) -> CheckRequest:
        """The request to check the models, whose commands join them as this request does."""
        words = list[str]()
        if self.seed:
            words += ["--seed", str(self.seed)]
        if self.force:
            words.append("--force")
        return replace(self.check, join_words=(*words, "-o", file_word(self.output)))

    def retry(self, models: tuple[str, ...], words: tuple[str, ...]) -> str:
        """Return the same join of other models, with `words` for those of the options."""
        return self.judged.retry(models, words)


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """A request to describe one model.

    `contract_file` is where to write its contract, if anywhere; `force` replaces what is there.
    """

    model: str
    options: Options = field(default_factory=Options)
    contract_file: str | None = None
    force: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The MODEL argument."""
        return (self.model,)

    def retry(self, models: tuple[str, ...], words: tuple[str, ...]) -> str:
        """Return the same command for another model, with `words` for those of the options."""
        options = option_words(pairs_of(words))
        return command_line([PROGRAM, "inspect", *map(file_word, models), *options])
