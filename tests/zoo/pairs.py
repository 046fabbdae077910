"""Ordered pairs of zoo models: whether what `check` says of a pair is what really running it shows.

python -m tests.zoo.pairs [--count 400] [--seed 0]
"""

from __future__ import annotations

import argparse
import itertools
import logging
import random
import re
import sys
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composecli.commands.check import check
from composecli.commands.requests import CheckRequest, Options
from composecli.commands.results import CheckReport
from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt
from composecli.core.findings import Verdict
from composecli.runtime.model import eager_arguments
from composecli.runtime.tensors import Maker
from composecli.workers.child import SubprocessWorker
from tests.zoo.run import SOURCES
from tests.zoo.specimens import save

# One of each kind: small enough for some hundred pairs to be checked and run.
CHOSEN = {
    "torch.nn": "",
    "torchvision": "^(resnet18|squeezenet1_1|mobilenet_v3_small|shufflenet_v2_x0_5|lraspp.*)$",
    "transformers": "^(bert|roberta|gpt2|distilbert|albert|vit|clip_vision_model|resnet|segformer|wav2vec2|t5|bart)$",
}


@dataclass(frozen=True)
class Saved:
    """A model in a file; `module` is it as it was saved, `loaded` as the file holds it, with scripted types."""

    name: str
    path: str
    module: nn.Module
    loaded: Any


def _saved(folder: Path) -> list[Saved]:
    found = list[Saved]()
    for source, pattern in CHOSEN.items():
        for entry in SOURCES[source]():
            if not re.search(pattern, entry.name):
                continue
            for form in ("scripted", "pickled"):
                path = folder / f"{source}_{entry.name}.{form}.pt"
                try:
                    specimen = entry.build()
                    save(specimen, form, path)
                except Exception:
                    continue
                loaded = torch.jit.load(str(path)) if form == "scripted" else specimen.module
                found.append(Saved(f"{source} {entry.name}", str(path), specimen.module, loaded))
                break
    return found


def _runs(one: Saved, other: Saved, report: CheckReport) -> bool | None:
    """Whether the second takes what the first gives at the example; None where the first has no contract."""
    contract = report.models[0].contract
    if contract is None:
        return None
    positional, named = Maker("cpu", 0, []).call(contract.example)
    with torch.no_grad():
        try:
            _call(other, one.loaded(*positional, **named))
        except Exception:
            return False
    return True


def _call(consumer: Saved, given: Any) -> Any:
    """As a chain feeds it: a tensor as it is, a tuple or dict with as many parts as there are required arguments."""
    arguments, module = eager_arguments(consumer.module), consumer.loaded
    required = [argument for argument in arguments if argument.required]
    if isinstance(given, torch.Tensor):
        if len(required) > 1:
            raise TypeError("more inputs are required than are given")
        return module(given)
    if len(required) > 1 and isinstance(given, tuple | list) and len(given) == len(required):
        return module(*given)
    if len(required) > 1 and isinstance(given, dict):
        return module(**{argument.name: given[argument.name] for argument in required})
    if (
        len(required) == 1
        and isinstance(given, list)
        and required[0].type_name.lower().startswith("list")
    ):
        return module(given)
    raise TypeError("the structure is another")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    counts, wrong = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        models = _saved(Path(folder))
        pairs = random.Random(arguments.seed).sample(
            list(itertools.permutations(models, 2)), arguments.count
        )
        worker = SubprocessWorker(60)
        for number, (one, other) in enumerate(pairs):
            if number % 60 == 59:
                worker.close()
                worker = SubprocessWorker(60)
            try:
                report = check(
                    CheckRequest(
                        (one.path, other.path),
                        options=Options(trust=(Trust(one.path), Trust(other.path))),
                    ),
                    worker,
                )
            except CouldNotAttempt as failure:
                counts[failure.problem.code] += 1
                continue
            verdict, runs = report.verdict, _runs(one, other, report)
            counts[str(verdict)] += 1
            fits = verdict is Verdict.COMPATIBLE
            if runs is not None and verdict is not Verdict.UNKNOWN and fits != runs:
                wrong.append(
                    f"{one.name} -> {other.name}: {verdict}, and it {'runs' if runs else 'does not run'}"
                )
                sys.stdout.write(wrong[-1] + "\n")
                sys.stdout.flush()
        worker.close()
    total = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    sys.stdout.write(
        f"{len(models)} models, {len(pairs)} ordered pairs: {total}; contradicted: {len(wrong)}\n"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
