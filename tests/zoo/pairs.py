"""Compare what `check` says of ordered pairs of zoo models with running each pair.

The pair is run at the sizes at which it fits, and at those at which it fails.

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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from composecli.commands.check import check
from composecli.commands.requests import CheckRequest, Options
from composecli.commands.results import CheckReport
from composecli.commands.trust import Trust
from composecli.core.contract import Contract
from composecli.core.errors import CouldNotAttempt
from composecli.core.findings import Verdict
from composecli.core.pytree import Call, TensorSpec
from composecli.core.resizing import resize
from composecli.runtime.model import eager_arguments
from composecli.runtime.tensors import Maker
from composecli.workers.child import SubprocessWorker
from tests.zoo.run import SOURCES
from tests.zoo.specimens import save

# Patterns of model names: one model of each kind, small enough to check and run hundreds of pairs.
CHOSEN = {
    "torch.nn": "",
    "torchvision": "^(resnet18|squeezenet1_1|mobilenet_v3_small|shufflenet_v2_x0_5|lraspp.*)$",
    "transformers": (
        "^(bert|roberta|gpt2|distilbert|albert|vit|clip_vision_model|resnet|segformer|wav2vec2|t5"
        "|bart)$"
    ),
}
MAX_PAIRS_PER_WORKER = 60
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class SavedModel:
    """A model in a file. `module` is the eager model, `loaded` the model that the file contains."""

    name: str
    path: str
    module: nn.Module
    loaded: Any


def _save_models(folder: Path) -> list[SavedModel]:
    """Save each chosen model in the first form that works."""
    models = list[SavedModel]()
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
                loaded = specimen.module
                if form == "scripted":
                    loaded = torch.jit.load(str(path))
                name = f"{source} {entry.name}"
                models.append(SavedModel(name, str(path), specimen.module, loaded))
                break
    return models


def _claims(report: CheckReport) -> Iterator[tuple[Call, bool]]:
    """Yield inputs of the first model, and whether the report says that the pair takes them.

    There are none if the first model has no contract.
    """
    contract = report.models[0].contract
    if contract is None or report.verdict is Verdict.UNKNOWN:
        return
    (seam,) = report.seams
    fits = report.verdict is Verdict.COMPATIBLE
    if any(port.dims is None for port in contract.required):
        yield _example_of(report, contract), fits
        return
    for sizes, runs in ((seam.fit.fits_at, True), (seam.fit.fails_at, False)):
        if sizes is not None:
            yield resize(contract, contract.example, sizes), runs
        elif runs is fits:
            yield contract.example, runs


def _example_of(report: CheckReport, contract: Contract) -> Call:
    """Return the input to which the verdict applies, if it has a shape of its own."""
    shape = re.fullmatch(r"(\w+)\[([0-9, ]*)\]", report.example or "")
    (argument,) = contract.example.arguments
    if shape is None or not isinstance(argument.value, TensorSpec):
        return contract.example
    sizes = tuple(int(size) for size in shape[2].split(",") if size.strip())
    spec = replace(argument.value, dtype=shape[1], sizes=sizes)
    return Call((replace(argument, value=spec),))


def _pair_runs(first: SavedModel, second: SavedModel, call: Call) -> bool:
    """Whether the second model accepts the first one's output at this input."""
    positional, named = Maker("cpu", 0, []).call(call)
    with torch.no_grad():
        try:
            _call(second, first.loaded(*positional, **named))
        except Exception:
            return False
    return True


def _call(consumer: SavedModel, output: Any) -> Any:
    """Call the consumer as a chain would.

    A tensor is passed as it is; a tuple or dict is spread over the required arguments if it has as
    many parts as there are of them.

    Raises:
        TypeError: if the structure of the output does not fit the arguments.
    """
    arguments = eager_arguments(consumer.module)
    module = consumer.loaded
    required = [argument for argument in arguments if argument.required]
    if isinstance(output, torch.Tensor):
        if len(required) > 1:
            raise TypeError("more inputs are required than there are outputs")
        return module(output)
    if len(required) > 1 and isinstance(output, tuple | list) and len(output) == len(required):
        return module(*output)
    if len(required) > 1 and isinstance(output, dict):
        return module(**{argument.name: output[argument.name] for argument in required})
    takes_list = required and required[0].type_name.lower().startswith("list")
    if len(required) == 1 and isinstance(output, list) and takes_list:
        return module(output)
    raise TypeError("the structure differs")


def _check_pair(first: SavedModel, second: SavedModel, worker: SubprocessWorker) -> tuple[str, str]:
    """Check and run one pair.

    Returns:
        The verdict, or the code of the problem; and how running the pair contradicts the verdict
        ("" if it does not).
    """
    trust = (Trust(first.path), Trust(second.path))
    request = CheckRequest((first.path, second.path), options=Options(trust=trust))
    try:
        report = check(request, worker)
    except CouldNotAttempt as failure:
        return failure.problem.code, ""
    verdict = str(report.verdict)
    for call, said in _claims(report):
        runs = _pair_runs(first, second, call)
        if runs is not said:
            result = "runs" if runs else "does not run"
            pair = f"{first.name} -> {second.name}"
            return verdict, f"{pair}: {verdict}, but at {call} the pair {result}"
    return verdict, ""


def main() -> int:
    """Check as many pairs as the command line asks for; return 1 if a verdict is contradicted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    counts = Counter[str]()
    contradicted = 0
    with tempfile.TemporaryDirectory() as folder:
        models = _save_models(Path(folder))
        every_pair = list(itertools.permutations(models, 2))
        pairs = random.Random(arguments.seed).sample(every_pair, arguments.count)
        worker = SubprocessWorker(TIMEOUT_SECONDS)
        for number, (first, second) in enumerate(pairs, start=1):
            if number % MAX_PAIRS_PER_WORKER == 0:
                worker.close()
                worker = SubprocessWorker(TIMEOUT_SECONDS)
            outcome, contradiction = _check_pair(first, second, worker)
            counts[outcome] += 1
            if contradiction:
                contradicted += 1
                sys.stdout.write(f"{contradiction}\n")
                sys.stdout.flush()
        worker.close()
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    sys.stdout.write(f"{len(models)} models, {len(pairs)} ordered pairs: {summary}; ")
    sys.stdout.write(f"contradicted: {contradicted}\n")
    return min(contradicted, 1)


if __name__ == "__main__":
    sys.exit(main())
