"""What a command was asked to do, as data: what `cli` makes of the words and the pipeline works from."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from composecli.commands.trust import Trust
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import BridgeMode
from composecli.core.input_spec import Declared
from composecli.inference.budget import Budget
from composecli.workers.protocol import Isolation, Training

_SELECT = re.compile(r"(?:(?P<model>\d+):)?(?P<port>.+)", re.DOTALL)
_MEMORY = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>[kMGT])?B?")
_DEVICE = re.compile(r"cpu|meta|cuda(:\d+)?")


@dataclass(frozen=True, slots=True)
class Selection:
    """One output of a model; `model` is its place in the command from 1, None for the first that has such a port."""

    model: int | None
    port: str


def parse_selection(text: str) -> Selection:
    """`logits`, `[0]`, `out["logits"]`, or `2:logits` for the second model."""
    found = _SELECT.fullmatch(text)
    if found is None:
        raise ValueError("no port is named")
    return Selection(int(found["model"]) if found["model"] else None, found["port"])


def parse_device(text: str) -> str:
    if not _DEVICE.fullmatch(text):
        raise ValueError(f"no device is called {text} (cpu, cuda, cuda:1 or meta)")
    return text


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may use: `memory` in bytes, `seconds` of computing for one request."""

    isolation: Isolation = Isolation.BEST
    memory: int | None = None
    seconds: float = 300.0


def parse_memory(text: str) -> int:
    """`8G`, `500M`, in bytes.

    Raises:
        ValueError: it is no size.
    """
    found = _MEMORY.fullmatch(text)
    if found is None or not float(found["number"]):
        raise ValueError(f"{text} is no size (8G, 500M)")
    return int(float(found["number"]) * 1000 ** (" kMGT".index(found["unit"] or " ")))


@dataclass(frozen=True, slots=True)
class Options:
    """What every command takes. `words` is the command line's own text for `--input` and its like, for fixes."""

    device: str = "cpu"
    inputs: tuple[Declared, ...] = ()
    selections: tuple[Selection, ...] = ()
    training: Training = Training.SAVED
    key: str | None = None
    trust: tuple[Trust, ...] = ()
    allowed_ops: tuple[str, ...] = ()
    budget: Budget = field(default_factory=Budget)
    limits: Limits = field(default_factory=Limits)
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckRequest:
    models: tuple[str, ...]
    mode: Mode = Mode.SEQUENTIAL
    strict: bool = False
    merge: Merge = Merge.CAT
    dim: int = 1
    bridge: BridgeMode = BridgeMode.NONE
    options: Options = field(default_factory=Options)

    def command(self, *more: str, name: str = "join") -> str:
        """A command line for the same models and options, with more words."""
        words = ["composecli", name, *self.models]
        if self.mode is Mode.PARALLEL:
            words += ["--mode", "parallel"]
            words += ["--merge", str(self.merge)] if self.merge is not Merge.CAT else []
            words += ["--dim", str(self.dim)] if self.dim != 1 else []
        return shlex.join([*words, *self.options.words, *more])


@dataclass(frozen=True, slots=True)
class JoinRequest:
    check: CheckRequest
    output: str
    seed: int = 0
    force: bool = False


@dataclass(frozen=True, slots=True)
class InspectRequest:
    model: str
    options: Options = field(default_factory=Options)
