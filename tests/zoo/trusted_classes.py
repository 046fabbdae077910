"""How many pickled models of each library load with `--trust-classes`, and how many without.

python -m tests.zoo.trusted_classes [LIBRARY ...]

Models are built with random weights, saved with `torch.save`, and opened in the child process of
the command line, in its sandbox. A library that is not installed is left out.
"""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

import composecli
from composecli.commands.requests import Options
from composecli.commands.resolve import identify
from composecli.commands.session import Session
from composecli.workers.child import SubprocessWorker
from composecli.workers.protocol import Sandbox, SandboxRequest, Worker
from tests.zoo import library_models, transformers_models
from tests.zoo.operators import declare

SECONDS = 200
Builders = Mapping[str, Callable[[], Any]]


def _transformers() -> Builders:
    """Return the architectures of the zoo, each once."""
    builders = dict[str, Callable[[], Any]]()
    for entry in transformers_models.entries():
        if "+" not in entry.name:
            builders[entry.name] = partial(_module_of, entry)
    return builders


def _module_of(entry: Any) -> Any:
    return entry.build().module


# By library: how its models are built, and the libraries whose classes they also have.
LIBRARIES: dict[str, tuple[Callable[[], Builders], tuple[str, ...]]] = {
    "torchvision": (library_models.torchvision, ()),
    "timm": (library_models.timm, ()),
    "transformers": (_transformers, ()),
    "ultralytics": (library_models.ultralytics, ()),
    "segmentation_models_pytorch": (
        library_models.segmentation_models_pytorch,
        ("timm", "torchvision"),
    ),
    "efficientnet_pytorch": (library_models.efficientnet_pytorch, ()),
    "monai": (library_models.monai, ("einops",)),
    "open_clip": (library_models.open_clip, ("timm",)),
    "facenet_pytorch": (library_models.facenet_pytorch, ()),
    "vit_pytorch": (library_models.vit_pytorch, ("einops",)),
}


def refusal(path: str, worker: Worker, trusted: tuple[str, ...]) -> str:
    """Open a file with the classes of these libraries; return why it does not load, or ""."""
    options = composecli.options(trust_classes=trusted)
    try:
        _open(path, worker, options)
    except composecli.CouldNotAttempt as error:
        return "; ".join((error.problem.title, *error.problem.notes[:3]))
    return ""


def _open(path: str, worker: Worker, options: Options) -> None:
    session = Session(worker, options, lambda _: None)
    session.open(identify(path, options))


def measure(library: str) -> None:
    """Print the share of a library's models that load."""
    build_all, others = LIBRARIES[library]
    trusted = (library, *others)
    folder = tempfile.TemporaryDirectory()
    worker = SubprocessWorker(SECONDS)
    confined = worker.ask(
        SandboxRequest((folder.name,), (), None, SECONDS, files=True, libraries=trusted)
    )
    assert isinstance(confined, Sandbox), confined
    built, alone, loaded = 0, 0, 0
    for name, build in build_all().items():
        path = Path(folder.name, "model.pt")
        try:
            torch.save(build().eval(), path)
        except Exception as error:
            sys.stdout.write(f"  {library} {name}: cannot be saved: {str(error)[:100]}\n")
            continue
        built += 1
        alone += not refusal(str(path), worker, ())
        reason = refusal(str(path), worker, trusted)
        loaded += not reason
        if reason:
            sys.stdout.write(f"  {library} {name}: {reason}\n")
    sys.stdout.write(f"{library}: {loaded} of {built} load, {alone} without the option\n")
    sys.stdout.flush()
    worker.close()


def main() -> int:
    """Measure the libraries that the command line names, or all that are installed."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    torch.set_num_threads(1)
    declare()
    for library in sys.argv[1:] or LIBRARIES:
        try:
            importlib.import_module(library)
        except ImportError as error:
            sys.stdout.write(f"{library}: left out: {error}\n")
        else:
            measure(library)
    return 0


if __name__ == "__main__":
    sys.exit(main())
