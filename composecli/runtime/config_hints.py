"""Settings: what libraries document of a model's input, where the model carries it.

transformers: `config.image_size`, `num_channels`, `num_frames`, `num_mel_bins`, `context_length`,
`max_position_embeddings` (its
configuration classes' documentation). timm: `pretrained_cfg["input_size"]`, channels, height and width. torchvision
and many after it: an attribute `image_size` of the module. They are proposals; what decides is a forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from composecli.core.facts import Setting

NAMES = (
    "image_size", "img_size", "input_size", "num_channels", "in_chans", "num_frames", "num_mel_bins", "max_length",
    "max_position_embeddings", "max_source_positions", "feature_size", "sample_size", "context_length",
    "num_input_channels",
)  # fmt: skip
_CONFIGURATIONS = ("config", "cfg", "pretrained_cfg", "default_cfg")
_PARTS = ("vision_config", "text_config", "audio_config", "backbone_config")


def settings(module: nn.Module) -> Iterator[Setting]:
    """Each setting once, those of the whole model first."""
    found = dict[Setting, None]()
    for holder in _configurations(module):
        found |= dict.fromkeys(_held(holder))
    for submodule in module.modules():
        found |= dict.fromkeys(_held(submodule))
    return iter(found)


def _configurations(module: nn.Module) -> Iterator[Any]:
    for name in _CONFIGURATIONS:
        holder = getattr(module, name, None)
        if holder is None:
            continue
        yield holder
        for part in _PARTS:
            inner = _get(holder, part)
            if inner is not None:
                yield inner


def _held(holder: Any) -> Iterator[Setting]:
    for name in NAMES:
        values = _numbers(_get(holder, name))
        if values:
            yield Setting(name, values)


def _get(holder: Any, name: str) -> Any:
    try:
        return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
    except Exception:
        return None


def _numbers(value: Any) -> tuple[int, ...]:
    values = value if isinstance(value, tuple | list) else (value,)
    whole = all(
        isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in values
    )
    return tuple(values) if whole and 0 < len(values) <= 3 else ()
