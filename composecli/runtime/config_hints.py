"""Input sizes that a model states about itself, in the conventions of the libraries it is from.

- transformers documents `image_size`, `num_channels`, `num_frames`, `num_mel_bins`,
  `context_length` and `max_position_embeddings` of its configuration classes.
- timm documents `pretrained_cfg["input_size"]`: channels, height and width.
- torchvision, and many after it, have an attribute `image_size` on the module.

They are hints: a forward decides whether a size is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from composecli.core.facts import Setting
from composecli.runtime.tensors import is_integer

SETTING_NAMES = (
    "image_size", "img_size", "input_size", "num_channels", "in_chans", "num_frames",
    "num_mel_bins", "max_length", "max_position_embeddings", "max_source_positions", "feature_size",
    "sample_size", "context_length", "num_input_channels",
)  # fmt: skip
# Channels, height and width.
MAX_SIZES = 3
_CONFIGURATIONS = ("config", "cfg", "pretrained_cfg", "default_cfg")
_PARTS = ("vision_config", "text_config", "audio_config", "backbone_config")


def read_settings(module: nn.Module) -> tuple[Setting, ...]:
    """Return each setting once: those of the configuration first, then those of the submodules."""
    # A dict, because its keys are distinct and keep their order.
    settings = dict[Setting, None]()
    for holder in (*_configurations(module), *module.modules()):
        for setting in _settings_of(holder):
            settings[setting] = None
    return tuple(settings)


def _configurations(module: nn.Module) -> Iterator[Any]:
    for name in _CONFIGURATIONS:
        configuration = getattr(module, name, None)
        if configuration is None:
            continue
        yield configuration
        for part in _PARTS:
            part_configuration = _get(configuration, part)
            if part_configuration is not None:
                yield part_configuration


def _settings_of(holder: Any) -> Iterator[Setting]:
    for name in SETTING_NAMES:
        sizes = _sizes(_get(holder, name))
        if sizes:
            yield Setting(name, sizes)


def _get(holder: Any, name: str) -> Any:
    """Return a key or an attribute; None if there is none. Reading it may run any code."""
    try:
        if isinstance(holder, Mapping):
            return holder.get(name)
        return getattr(holder, name, None)
    except Exception:
        return None


def _sizes(value: Any) -> tuple[int, ...]:
    """Return one to three positive integers; none if the value is anything else."""
    values = (value,)
    if isinstance(value, tuple | list):
        values = tuple(value)
    if len(values) > MAX_SIZES:
        return ()
    if not all(is_integer(item) and item > 0 for item in values):
        return ()
    return values
