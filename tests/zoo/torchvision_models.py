"""torchvision's models with random weights: classification, segmentation, video, optical flow."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from tests.zoo.operators import declare
from tests.zoo.specimens import Entry, Specimen

# Too slow to build, or in need of torchvision's compiled operators.
LEFT_OUT = re.compile(
    r".*rcnn.*|ssd.*|retinanet.*|fcos.*|quantized.*|vit_[lh].*|regnet_[xy]_(16|32|128)gf"
    r"|regnet_y_8gf|regnet_x_8gf|vgg1[369].*|convnext_(base|large)|efficientnet_(b[4567]|v2_[ml])"
    r"|wide_resnet101_2|resnext101.*|swin_b|swin_v2_b|swin3d_[sb]|densenet161|.*resnet101|resnet152"
    r"|raft_large"
)
VIDEO = ("r3d_18", "mc3_18", "r2plus1d_18", "mvit_v1_b", "mvit_v2_s", "s3d", "swin3d_t")


def entries() -> Iterator[Entry]:
    """Yield every model of torchvision that is not left out."""
    declare()
    import torchvision.models

    for name in torchvision.models.list_models():
        if not LEFT_OUT.fullmatch(name):
            yield Entry("torchvision", name, partial(_build, name))


def _build(name: str) -> Specimen:
    declare()
    import torchvision.models

    options: dict[str, Any] = {"weights": None}
    if name.startswith(("deeplab", "fcn", "lraspp")):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torchvision.models.get_model(name, **options).eval()
    return Specimen(module, _inputs(name))


def _inputs(name: str) -> tuple[torch.Tensor, ...]:
    if name.startswith("raft"):
        return torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128)
    if name.startswith(("mvit", "s3d")):
        return (torch.rand(1, 3, 16, 224, 224),)
    if name in VIDEO:
        return (torch.rand(2, 3, 8, 64, 64),)
    return (torch.rand(2, 3, 224, 224),)
