"""Provenance: where a joined file comes from, as JSON inside the file.

Every key is written out here, as `$defs/provenance` of `report/schema_v1.json` describes it, so
that renaming a class or a field cannot change the files of users.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

from composecli.commands.composition import Composition, InferenceResult
from composecli.commands.opened_model import OpenedModel, OpenedModels
from composecli.commands.requests import JoinRequest
from composecli.core.blueprint import Blueprint, Parallel, bridges
from composecli.core.version import VERSION
from composecli.files.writing.digests import Digests
from composecli.inference import Found

PROVENANCE_VERSION = 1
JsonObject = dict[str, object]


def provenance_json(
    request: JoinRequest,
    parts: OpenedModels,
    composition: Composition,
    blueprint: Blueprint,
    digests: Digests,
) -> str:
    """Return the provenance of a joined file. Wait for the digests of its parts.

    Raises:
        OSError: if a part cannot be read.
    """
    options = request.check.options
    inputs = list[JsonObject]()
    for part, found in zip(parts, composition.contracts, strict=True):
        inputs.append(_input(part, found, digests))
    steps = [[step.as_data() for step in bridge] for bridge in bridges(blueprint)]
    facts = {
        "version": PROVENANCE_VERSION,
        "mode": str(request.check.mode),
        "inputs": inputs,
        "example": str(composition.call),
        "bridges": steps,
        "merge": _merge(blueprint),
        "seed": request.seed,
        "device": options.real_device,
        "training": str(options.training),
        "composecli": VERSION,
        "torch": _torch_version(),
    }
    return json.dumps(facts, indent=1)


def _input(part: OpenedModel, found: InferenceResult, digests: Digests) -> JsonObject:
    """Return the entry of one part; its digest may still have to be awaited."""
    contract = None
    if isinstance(found, Found):
        contract = str(found.contract)
    name, sha256 = part.name, None
    if part.target.path is not None:
        name, sha256 = Path(part.target.path).name, digests.of(part.target.path)
    return {
        "name": name,
        "kind": str(part.target.kind),
        "sha256": sha256,
        "contract": contract,
        "training": part.facts.training,
    }


def _merge(blueprint: Blueprint) -> JsonObject | None:
    """Return how outputs are merged, None for a chain."""
    if not isinstance(blueprint, Parallel):
        return None
    return {"merge": str(blueprint.merge), "dim": blueprint.dim}


def _torch_version() -> str | None:
    """Return the installed version of torch without importing it; None if it is not installed."""
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
