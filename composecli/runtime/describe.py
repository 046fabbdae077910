"""Describing a loaded model: its facts, and a table of its layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from composecli.core.facts import LayerFact, ModelFacts, NamedSizes
from composecli.inference.parameter_ops import LAYER_CONSTANTS
from composecli.runtime.config_hints import read_settings
from composecli.runtime.forward.data_dependence import weightless
from composecli.runtime.model import Model, is_exported
from composecli.runtime.packed_weights import packed_weights
from composecli.runtime.tensors import (
    Identity,
    Values,
    dtype_name,
    has_sizes,
    identity_of,
    is_integer,
    spec_of,
)
from composecli.workers.protocol import LayerRow


def collect_facts(model: Model) -> ModelFacts:
    """Return what is known of a model without running it. A shared parameter counts once."""
    module = model.module
    parameters = list(module.parameters())
    tensors = [*parameters, *module.buffers()]
    distinct = _distinct(parameters)
    trainable = [tensor for tensor in distinct if tensor.requires_grad]
    dtypes = map(dtype_name, tensors)
    devices = [str(tensor.device) for tensor in tensors]
    if model.switchable:
        training = _training(module)
        layers = _layers(module)
    else:
        training = "as it was exported"
        layers = _exported_layers(module)
    main_input = getattr(module, "main_input_name", None)
    if not isinstance(main_input, str):
        main_input = None
    return ModelFacts(
        class_name=class_name(module),
        arguments=model.arguments,
        training=training,
        layers=layers,
        parameters=_count_elements(distinct),
        trainable=_count_elements(trainable),
        size=_count_bytes(_distinct(tensors)),
        dtypes=_by_frequency(dtypes),
        devices=_by_frequency(devices),
        shared=tuple(shared_names(module)),
        notes=model.notes,
        settings=read_settings(module),
        main_input=main_input,
    )


def class_name(module: nn.Module) -> str:
    """Return the class of a module, as its author called it even if it is scripted now."""
    if is_exported(module):
        return "ExportedProgram"
    original = getattr(module, "original_name", None)
    return str(original or type(module).__name__)


def shared_names(module: nn.Module) -> list[tuple[str, ...]]:
    """Return the names of each parameter or buffer that has more than one."""
    names_of = dict[Identity, list[str]]()
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    for name, tensor in (*parameters, *buffers):
        # The size of a lazy parameter is not known before it has weights.
        if not is_lazy(tensor) and tensor.numel() > 0:
            names = names_of.setdefault(identity_of(tensor), [])
            names.append(name)
    return [tuple(names) for names in names_of.values() if len(names) > 1]


def layer_rows(model: Model, values: Values | None) -> tuple[LayerRow, ...]:
    """Return the layer table of a model.

    If `values` are given and the model is eager, it is run on them to find the output sizes, with
    torchinfo. The table of any other model has its submodules and their parameters.
    """
    is_eager = model.switchable and not isinstance(model.module, torch.jit.ScriptModule)
    if values is not None and is_eager:
        rows = _torchinfo_rows(model, values)
        if rows:
            return rows
    if model.switchable:
        return _submodule_rows(model.module)
    return _exported_rows(model.module)


def _training(module: nn.Module) -> str:
    """Return "train" or "eval", or "mixed" if the submodules are not all in one mode."""
    flags = {getattr(submodule, "training", False) for submodule in module.modules()}
    if len(flags) > 1:
        return "mixed"
    if True in flags:
        return "train"
    return "eval"


def _by_frequency(values: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct values, the most frequent first."""
    counts = dict[str, int]()
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    return tuple(ordered)


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    """Return one tensor for each identity: tied parameters appear once."""
    by_identity = {identity_of(tensor): tensor for tensor in tensors}
    return list(by_identity.values())


def _count_elements(tensors: Iterable[Tensor]) -> int:
    """Return the number of elements of all tensors together."""
    return sum(tensor.numel() for tensor in tensors)


def _count_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the values of all tensors; of a sparse one, as if it were dense."""
    # Sparse tensors have no `nbytes`.
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _layers(module: nn.Module) -> tuple[LayerFact, ...]:
    """Return a fact for each submodule, itself included, with its own tensors only."""
    layers = list[LayerFact]()
    for name, submodule in module.named_modules():
        parameters = _named_sizes(submodule.named_parameters(recurse=False))
        parameters += packed_weights(submodule)
        buffers = _named_sizes(submodule.named_buffers(recurse=False))
        constants = _constants(submodule)
        kind = class_name(submodule)
        layers.append(LayerFact(name, kind, parameters, constants, buffers))
    return tuple(layers)


def _named_sizes(tensors: Iterable[tuple[str, Tensor]]) -> tuple[NamedSizes, ...]:
    """Return the sizes of each tensor by name, without nested tensors, which have none."""
    named = list[NamedSizes]()
    for name, tensor in tensors:
        if has_sizes(tensor):
            spec = spec_of(tensor)
            named.append(NamedSizes(name, spec.dtype, spec.sizes))
    return tuple(named)


def _constants(module: nn.Module) -> tuple[tuple[str, int], ...]:
    """Return the integer attributes of a layer that inference uses, such as a stride."""
    constants = list[tuple[str, int]]()
    for name in LAYER_CONSTANTS:
        value = getattr(module, name, None)
        if is_integer(value):
            constants.append((name, value))
    return tuple(constants)


def _exported_layers(module: nn.Module) -> tuple[LayerFact, ...]:
    """Return the parameters of a program by the submodule that their names begin with.

    An exported program has no submodules that run: `encoder.fc.weight` was one of `encoder.fc`.
    """
    tensors = dict[str, list[tuple[str, Tensor]]]()
    for name, tensor in module.named_parameters():
        owner, _, own_name = name.rpartition(".")
        tensors.setdefault(owner, []).append((own_name, tensor))
    layers = list[LayerFact]()
    for owner, named in tensors.items():
        sizes = _named_sizes(named)
        layers.append(LayerFact(owner, "", sizes))
    return tuple(layers)


def _torchinfo_rows(model: Model, values: Values) -> tuple[LayerRow, ...]:
    """Return the rows of torchinfo; none if it fails, which need not be the model's fault."""
    import torchinfo

    try:
        # The state is copied, because torchinfo changes it. Parameters are not: they are as large
        # as the file.
        shared = {id(parameter): parameter for parameter in model.module.parameters()}
        module = copy.deepcopy(model.module, shared)
        copied = replace(model, module=module)
        with weightless({0: copied}):
            summary = torchinfo.summary(
                module,
                input_data=values.flat(),
                mode=_mode(module),
                verbose=0,
                device=model.request.device,
            )
    except Exception:
        return ()
    rows = list[LayerRow]()
    for info in summary.summary_list:
        name = ""
        if info.depth > 0:
            name = info.var_name
        sizes = _size_text(info.output_size)
        count = int(info.num_params)
        rows.append(LayerRow(info.depth, name, info.class_name, sizes, count))
    return tuple(rows)


def _mode(module: nn.Module) -> str:
    """Return the mode in which torchinfo is to run a module: the one that it is in."""
    if module.training:
        return "train"
    return "eval"


def _size_text(size: Any) -> str:
    """Return `[2, 10]`, or an empty text for the sizes of several outputs."""
    if not isinstance(size, list | tuple) or not size:
        return ""
    if not all(isinstance(item, int) for item in size):
        return ""
    text = ", ".join(map(str, size))
    return f"[{text}]"


def _submodule_rows(module: nn.Module) -> tuple[LayerRow, ...]:
    """Return a row for each submodule, with the parameters below it counted once each."""
    rows = list[LayerRow]()
    for name, submodule in module.named_modules():
        parameters = list(submodule.parameters())
        count = _count_elements(_distinct(parameters))
        kind = class_name(submodule)
        rows.append(LayerRow(_depth(name), name, kind, "", count))
    return tuple(rows)


def _exported_rows(module: nn.Module) -> tuple[LayerRow, ...]:
    """Return a row for the program and for each prefix of its parameters' names.

    Each row counts the parameters below it: `encoder.fc.weight` counts for the program, for
    `encoder` and for `encoder.fc`.
    """
    counts = dict[str, int]()
    for layer in _exported_layers(module):
        count = sum(math.prod(parameter.sizes) for parameter in layer.parameters)
        for name in _prefixes(layer.name):
            counts[name] = counts.get(name, 0) + count
    rows = list[LayerRow]()
    for name, count in counts.items():
        row_class = ""
        if not name:
            row_class = class_name(module)
        depth = _depth(name)
        rows.append(LayerRow(depth, name, row_class, "", count))
    return tuple(rows)


def _prefixes(name: str) -> list[str]:
    """Return `["", "encoder", "encoder.fc"]` for `encoder.fc`, and `[""]` for an empty name."""
    if not name:
        return [""]
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _depth(name: str) -> int:
    """Return 0 for the module itself, 1 for `encoder`, 2 for `encoder.fc`."""
    if not name:
        return 0
    return name.count(".") + 1
