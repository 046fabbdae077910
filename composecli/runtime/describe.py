"""Describing a loaded model: its facts, and a table of its layers."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from composecli.core.facts import LayerFact, ModelFacts, NamedSizes
from composecli.runtime.config_hints import settings
from composecli.runtime.forward.data_dependence import weightless
from composecli.runtime.model import Model
from composecli.runtime.pt2.program import Program
from composecli.runtime.tensors import Values, has_sizes, identity_of, spec_of
from composecli.workers.protocol import LayerRow


def facts(model: Model) -> ModelFacts:
    """What the module says of itself. A parameter that is shared counts once."""
    module = model.module
    parameters = list(module.parameters())
    tensors = [*parameters, *module.buffers()]
    return ModelFacts(
        class_name=class_name(module),
        arguments=model.arguments,
        training=_training(module) if model.switchable else "as it was exported",
        layers=_layers(module) if model.switchable else _exported_layers(module),
        parameters=sum(parameter.numel() for parameter in _distinct(parameters)),
        trainable=sum(
            parameter.numel() for parameter in _distinct(parameters) if parameter.requires_grad
        ),
        size=sum(tensor.numel() * tensor.element_size() for tensor in _distinct(tensors)),
        dtypes=_common(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
        devices=_common(str(tensor.device) for tensor in tensors),
        shared=tuple(shared_names(module)),
        notes=model.notes,
        settings=tuple(settings(module)),
        main_input=_text(getattr(module, "main_input_name", None)),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def class_name(module: nn.Module) -> str:
    if isinstance(module, torch.fx.GraphModule | Program):
        return "ExportedProgram"
    return str(getattr(module, "original_name", None) or type(module).__name__)


def _training(module: nn.Module) -> str:
    flags = {getattr(submodule, "training", False) for submodule in module.modules()}
    return "mixed" if len(flags) > 1 else "train" if True in flags else "eval"


def _common(values: Any) -> tuple[str, ...]:
    """The distinct values, the most frequent first."""
    counts = dict[str, int]()
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return tuple(sorted(counts, key=lambda value: (-counts[value], value)))


def _distinct(tensors: list[Any]) -> list[torch.Tensor]:
    return list({identity_of(tensor): tensor for tensor in tensors}.values())


def shared_names(module: nn.Module) -> list[tuple[str, ...]]:
    """The groups of names under which one and the same parameter or buffer is held."""
    groups = dict[tuple[Any, ...], list[str]]()
    named = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    for name, tensor in named:
        if tensor.numel():
            groups.setdefault(identity_of(tensor), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


def _layers(module: nn.Module) -> tuple[LayerFact, ...]:
    return tuple(
        LayerFact(
            name,
            class_name(submodule),
            tuple(
                NamedSizes(own, spec_of(tensor).dtype, spec_of(tensor).sizes)
                for own, tensor in submodule.named_parameters(recurse=False)
            ),
            _constants(submodule),
            tuple(
                NamedSizes(own, spec_of(tensor).dtype, spec_of(tensor).sizes)
                for own, tensor in submodule.named_buffers(recurse=False)
                if has_sizes(tensor)
            ),
        )
        for name, submodule in module.named_modules()
    )


def _constants(module: nn.Module) -> tuple[tuple[str, int], ...]:
    found = (
        (name, getattr(module, name, None)) for name in ("groups", "num_embeddings", "padding_idx")
    )
    return tuple(
        (name, value)
        for name, value in found
        if isinstance(value, int) and not isinstance(value, bool)
    )


def _exported_layers(module: nn.Module) -> tuple[LayerFact, ...]:
    """An exported program keeps no submodules that run; its parameters are gathered by the name before the dot."""
    found = dict[str, list[NamedSizes]]()
    for name, tensor in module.named_parameters():
        owner, _, own = name.rpartition(".")
        found.setdefault(owner, []).append(
            NamedSizes(own, spec_of(tensor).dtype, spec_of(tensor).sizes)
        )
    return tuple(LayerFact(owner, "", tuple(parameters)) for owner, parameters in found.items())


def rows(model: Model, values: Values | None) -> tuple[LayerRow, ...]:
    """The layer table: torchinfo's rows for an eager model, on a copy; submodules and their parameters otherwise."""
    if (
        values is not None
        and model.switchable
        and not isinstance(model.module, torch.jit.ScriptModule)
    ):
        return _torchinfo_rows(model, values) or _plain_rows(model)
    return _plain_rows(model)


def _torchinfo_rows(model: Model, values: Values) -> tuple[LayerRow, ...]:
    """torchinfo's rows; none where it cannot run the model, which is no fault of the model's."""
    import torchinfo

    try:
        # Its state is copied and its parameters are not: they are as large as the file.
        module = copy.deepcopy(
            model.module, {id(parameter): parameter for parameter in model.module.parameters()}
        )
        mode = "train" if module.training else "eval"
        given = [*values[0], *values[1].values()]
        with weightless({0: replace(model, module=module)}):
            found = torchinfo.summary(
                module, input_data=given, mode=mode, verbose=0, device=model.request.device
            )
    except Exception:
        return ()
    return tuple(
        LayerRow(
            info.depth,
            info.var_name if info.depth else "",
            info.class_name,
            _sizes(info.output_size),
            int(info.num_params),
        )
        for info in found.summary_list
    )


def _sizes(size: Any) -> str:
    flat = isinstance(size, list | tuple) and all(isinstance(item, int) for item in size)
    return f"[{', '.join(map(str, size))}]" if flat and size else ""


def _plain_rows(model: Model) -> tuple[LayerRow, ...]:
    if not model.switchable:
        return _exported_rows(model.module)
    return tuple(
        LayerRow(
            name.count(".") + 1 if name else 0,
            name,
            class_name(submodule),
            "",
            sum(parameter.numel() for parameter in _distinct(list(submodule.parameters()))),
        )
        for name, submodule in model.module.named_modules()
    )


def _exported_rows(module: nn.Module) -> tuple[LayerRow, ...]:
    """A row for the program and for each prefix of its parameters' names, with the parameters below it."""
    counts = dict[str, int]()
    for layer in _exported_layers(module):
        count = sum(_numel(parameter.sizes) for parameter in layer.parameters)
        parts = layer.name.split(".") if layer.name else []
        for depth in range(len(parts) + 1):
            name = ".".join(parts[:depth])
            counts[name] = counts.get(name, 0) + count
    root = class_name(module)
    return tuple(
        LayerRow(name.count(".") + 1 if name else 0, name, "" if name else root, "", count)
        for name, count in counts.items()
    )


def _numel(sizes: tuple[int, ...]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count
