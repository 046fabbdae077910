"""Describing a loaded model: its facts, and a table of its layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from composecli.core.facts import LayerFact, ModelFacts, NamedSizes
from composecli.inference.parameter_ops import LAYER_CONSTANTS
from composecli.runtime.config_hints import read_settings
from composecli.runtime.forward.data_dependence import weightless
from composecli.runtime.model import Model, is_exported
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
        training, layers = _training(module), _layers(module)
    else:
        training, layers = "as it was exported", _exported_layers(module)
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
    return str(getattr(module, "original_name", None) or type(module).__name__)


def shared_names(module: nn.Module) -> list[tuple[str, ...]]:
    """Return the names of each parameter or buffer that has more than one."""
    names_of = dict[Identity, list[str]]()
    parameters = module.named_parameters(remove_duplicate=False)
    buffers = module.named_buffers(remove_duplicate=False)
    for name, tensor in (*parameters, *buffers):
        if tensor.numel() > 0:
            names_of.setdefault(identity_of(tensor), []).append(name)
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
    return tuple(sorted(counts, key=lambda value: (-counts[value], value)))


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    return list({identity_of(tensor): tensor for tensor in tensors}.values())


def _count_elements(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _count_bytes(tensors: Iterable[Tensor]) -> int:
    # Sparse tensors have no `nbytes`.
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _layers(module: nn.Module) -> tuple[LayerFact, ...]:
    layers = list[LayerFact]()
    for name, submodule in module.named_modules():
        parameters = _named_sizes(submodule.named_parameters(recurse=False))
        buffers = _named_sizes(submodule.named_buffers(recurse=False))
        constants = _constants(submodule)
        layers.append(LayerFact(name, class_name(submodule), parameters, constants, buffers))
    return tuple(layers)


def _named_sizes(tensors: Iterable[tuple[str, Tensor]]) -> tuple[NamedSizes, ...]:
    named = list[NamedSizes]()
    for name, tensor in tensors:
        if has_sizes(tensor):
            spec = spec_of(tensor)
            named.append(NamedSizes(name, spec.dtype, spec.sizes))
    return tuple(named)


def _constants(module: nn.Module) -> tuple[tuple[str, int], ...]:
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
        layers.append(LayerFact(owner, "", _named_sizes(named)))
    return tuple(layers)


def _torchinfo_rows(model: Model, values: Values) -> tuple[LayerRow, ...]:
    """Return the rows of torchinfo; none if it fails, which need not be the model's fault."""
    import torchinfo

    try:
        # The state is copied, because torchinfo changes it. Parameters are not: they are as large
        # as the file.
        shared = {id(parameter): parameter for parameter in model.module.parameters()}
        module = copy.deepcopy(model.module, shared)
        with weightless({0: replace(model, module=module)}):
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
        rows.append(LayerRow(info.depth, name, info.class_name, sizes, int(info.num_params)))
    return tuple(rows)


def _mode(module: nn.Module) -> str:
    if module.training:
        return "train"
    return "eval"


def _size_text(size: Any) -> str:
    """Return `[2, 10]`, or an empty text for the sizes of several outputs."""
    if not isinstance(size, list | tuple) or not size:
        return ""
    if not all(isinstance(item, int) for item in size):
        return ""
    return f"[{', '.join(map(str, size))}]"


def _submodule_rows(module: nn.Module) -> tuple[LayerRow, ...]:
    rows = list[LayerRow]()
    for name, submodule in module.named_modules():
        count = _count_elements(_distinct(list(submodule.parameters())))
        rows.append(LayerRow(_depth(name), name, class_name(submodule), "", count))
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
        rows.append(LayerRow(_depth(name), name, row_class, "", count))
    return tuple(rows)


def _prefixes(name: str) -> list[str]:
    """Return `["", "encoder", "encoder.fc"]` for `encoder.fc`, and `[""]` for an empty name."""
    if not name:
        return [""]
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(len(parts) + 1)]


def _depth(name: str) -> int:
    if not name:
        return 0
    return name.count(".") + 1
