"""What a pickled module may hold of each library that can be trusted with `--trust-classes`.

The ten that people have whole modules of: the models of PyTorch's own vision library and of timm,
what the examples of segmentation_models_pytorch and the trainer of ultralytics save, fine-tuned
models of transformers and open_clip, and the small packages of one architecture. Those of
torch_geometric are not among them: they keep signatures, which a pickle makes by calling `type` and
`getattr`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LibraryPolicy:
    """The names of one library that a pickle may have, as expressions of whole names.

    `modules` are the Python modules whose module classes, and enums, may be made. `data` are other
    classes of objects with a state, `tuples` named tuples, and `functions` are those that may be
    kept as an attribute; they are not called while a file loads.

    `vouched` are methods that run when an object is made empty or gets its state, and that were
    read: they set attributes of the object, and open, import and evaluate nothing. `texts` are
    attributes that hold a text, although modules have a method of that name. `imported` is imported
    with the library, and `distribution` is its name for pip.
    """

    modules: str
    data: str = ""
    tuples: str = ""
    functions: str = ""
    vouched: frozenset[str] = frozenset()
    imported: tuple[str, ...] = ()
    distribution: str = ""
    texts: frozenset[str] = frozenset()

    def has_module(self, module: str) -> bool:
        """Return whether the module classes of a Python module may be made."""
        return re.fullmatch(self.modules, module) is not None

    def has_data(self, name: str) -> bool:
        """Return whether a class of objects that are no modules may be made."""
        return re.fullmatch(self.data, name) is not None

    def has_tuple(self, name: str) -> bool:
        """Return whether a named tuple may be made, with its values."""
        return re.fullmatch(self.tuples, name) is not None

    def has_function(self, name: str) -> bool:
        """Return whether a function may be an attribute of a module."""
        return re.fullmatch(self.functions, name) is not None

    def has(self, module: str, name: str) -> bool:
        """Return whether a pickle may have a name of a Python module of the library."""
        full = f"{module}.{name}"
        if self.has_data(full) or self.has_tuple(full) or self.has_function(full):
            return True
        return self.has_module(module)


_EFFICIENTNET = r"(BlockArgs|GlobalParams)"
POLICIES = {
    "torchvision": LibraryPolicy(
        r"torchvision\.(models|ops|transforms)(\.\w+)*",
        # Objects with a few numbers, which a detector keeps beside its modules.
        data=r"torchvision\.models\.detection\._utils\."
        r"(BalancedPositiveNegativeSampler|BoxCoder|BoxLinearCoder|Matcher|SSDMatcher)",
        functions=r"torchvision\.(ops\.boxes\.box_iou|models\.optical_flow\.raft\._pass_through_h)",
    ),
    "timm": LibraryPolicy(
        r"timm\.(layers|models)(\.\w+)*",
        # The channels of each stage of a backbone.
        data=r"timm\.models\._features\.FeatureInfo",
    ),
    "transformers": LibraryPolicy(
        r"transformers\.(activations|pytorch_utils|models\.\w+\.(modeling_\w+|quant_modules))",
        data=r"transformers\.models\.\w+\.configuration_\w+\.\w+"
        r"|transformers\.generation\.configuration_utils\.GenerationConfig",
        imported=("transformers.modeling_utils",),
    ),
    "ultralytics": LibraryPolicy(
        r"ultralytics\.nn\.(tasks|modules(\.\w+)*)",
        vouched=frozenset(("ultralytics.nn.modules.block.AAttn.__setstate__",)),
        imported=("ultralytics.nn.tasks",),
        texts=frozenset(("type",)),
    ),
    "segmentation_models_pytorch": LibraryPolicy(
        r"segmentation_models_pytorch\.(base|decoders|encoders)(\.\w+)*",
        tuples=rf"segmentation_models_pytorch\.encoders\._efficientnet\.{_EFFICIENTNET}",
        vouched=frozenset(
            (
                "segmentation_models_pytorch.base.model.SegmentationModel.__new__",
                "huggingface_hub.hub_mixin.ModelHubMixin.__new__",
            )
        ),
    ),
    "efficientnet_pytorch": LibraryPolicy(
        r"efficientnet_pytorch\.(model|utils)",
        tuples=rf"efficientnet_pytorch\.utils\.{_EFFICIENTNET}",
    ),
    "monai": LibraryPolicy(
        r"monai\.(networks\.(blocks|layers|nets)(\.\w+)*|utils\.enums)",
        tuples=r"monai\.networks\.nets\.efficientnet\.BlockArgs",
    ),
    "open_clip": LibraryPolicy(
        r"open_clip\.(model|transformer|coca_model|modified_resnet|timm_model|hf_model)",
        distribution="open_clip_torch",
    ),
    "facenet_pytorch": LibraryPolicy(r"facenet_pytorch\.models\.inception_resnet_v1"),
    "vit_pytorch": LibraryPolicy(r"vit_pytorch(\.\w+)*"),
    # Many of the others have its layers in their models. Their state is the pattern that their
    # constructor parses.
    "einops": LibraryPolicy(
        r"einops\.layers\.torch",
        vouched=frozenset(
            (
                "einops.layers.RearrangeMixin.__setstate__",
                "einops.layers.ReduceMixin.__setstate__",
            )
        ),
    ),
}
LIBRARIES = tuple(POLICIES)
