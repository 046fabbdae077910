"""Small random configurations of transformers: text, vision, audio, and text to text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.zoo.operators import declare
from tests.zoo.specimens import Entry, Specimen

TEXT = [
    "bert", "roberta", "albert", "distilbert", "electra", "deberta", "deberta-v2", "mpnet",
    "camembert", "xlm-roberta", "convbert", "fnet", "squeezebert", "mobilebert", "big_bird",
    "nystromformer", "roformer", "rembert", "ernie", "ibert", "megatron-bert", "xlm",
    "flaubert", "layoutlm", "canine", "yoso", "mra", "markuplm", "data2vec-text", "modernbert",
    "nomic_bert", "splinter", "gpt2", "gpt_neox", "opt", "bloom", "llama", "mistral", "mixtral",
    "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "mpt", "ctrl", "openai-gpt", "biogpt",
    "stablelm", "olmo", "starcoder2", "granite", "cohere", "mamba", "falcon_mamba", "rwkv",
    "xglm", "persimmon", "gpt_bigcode", "clip_text_model", "imagegpt", "visual_bert", "tapas",
    "longformer",
]  # fmt: skip
TEXT_TO_TEXT = [
    "t5", "mt5", "bart", "mbart", "pegasus", "marian", "blenderbot", "longt5", "m2m_100",
    "plbart", "switch_transformers", "umt5",
]  # fmt: skip
VISION = [
    "vit", "deit", "beit", "dinov2", "resnet", "regnet", "mobilenet_v1", "mobilenet_v2",
    "mobilevit", "poolformer", "pvt", "pvt_v2", "segformer", "cvt", "focalnet", "ijepa",
    "vit_msn", "bit", "swiftformer", "textnet", "siglip_vision_model", "clip_vision_model",
    "dpt", "glpn", "data2vec-vision", "yolos", "dinov3_vit", "aimv2_vision_model", "swin",
    "convnext", "convnextv2", "levit",
]  # fmt: skip
AUDIO = [
    "wav2vec2", "hubert", "wavlm", "sew", "sew-d", "unispeech", "data2vec-audio",
    "wav2vec2-conformer",
]  # fmt: skip
# Image sizes of models that keep their default configuration.
LARGER = {"swin": 224, "convnext": 64, "convnextv2": 64, "levit": 224}
# Small values for the usual names of sizes in a configuration.
SMALL = {
    "vocab_size": 99, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "encoder_layers": 2,
    "decoder_layers": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4, "n_heads": 4,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_heads": 4,
    "intermediate_size": 64, "ffn_dim": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "d_ff": 64, "hidden_dim": 64, "max_position_embeddings": 64, "n_positions": 64,
    "num_key_value_heads": 4, "embedding_size": 32, "head_dim": 8, "d_kv": 8, "image_size": 32,
    "patch_size": 8, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip


class Plain(nn.Module):
    """A model with only tensors as inputs and outputs; the subclasses name the inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Ids(Plain):
    """A model of token ids."""

    def forward(self, input_ids: torch.Tensor) -> Any:
        return _tensors(self.model(input_ids=input_ids, return_dict=False))


class MaskedIds(Plain):
    """A model of token ids and an attention mask."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return _tensors(
            self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)
        )


class TwoIds(Plain):
    """An encoder and decoder with token ids for each."""

    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> Any:
        return _tensors(
            self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids, return_dict=False)
        )


class Pixels(Plain):
    """A model of images."""

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return _tensors(self.model(pixel_values, return_dict=False))


class Waves(Plain):
    """A model of audio samples."""

    def forward(self, input_values: torch.Tensor) -> Any:
        return _tensors(self.model(input_values, return_dict=False))


def _tensors(result: Any) -> Any:
    return tuple(item for item in result if isinstance(item, torch.Tensor))


def small(name: str, *, plain: bool = False) -> nn.Module:
    """Return the base model of an architecture with random weights.

    Every size in its configuration that has a usual name is made small, unless `plain` asks for
    the default configuration.
    """
    declare()
    import transformers

    transformers.logging.set_verbosity_error()
    configuration = type(transformers.AutoConfig.for_model(name))
    default = configuration()
    settings = dict[str, int]()
    for key, value in SMALL.items():
        # A setting that is a list or None means something else in this architecture.
        if type(getattr(default, key, None)) is int:
            settings[key] = value
    config = default
    if not plain:
        config = configuration(**settings)
    config.use_cache = False
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).eval()


def _ids(*sizes: int) -> torch.Tensor:
    return torch.randint(4, 99, sizes)


def _text(name: str) -> Specimen:
    model = small(name)
    ids = _ids(2, 12)
    return Specimen(model, (ids,), Ids(model), {"input_ids": ids})


def _masked_text(name: str) -> Specimen:
    model = small(name)
    ids = _ids(2, 12)
    mask = torch.ones_like(ids)
    named = {"input_ids": ids, "attention_mask": mask}
    return Specimen(model, (ids, mask), MaskedIds(model), named)


def _text_to_text(name: str) -> Specimen:
    model = small(name)
    ids = _ids(2, 12)
    decoder_ids = _ids(2, 7)
    named = {"input_ids": ids, "decoder_input_ids": decoder_ids}
    return Specimen(model, (ids, decoder_ids), TwoIds(model), named)


def _vision(name: str) -> Specimen:
    size = LARGER.get(name, 32)
    model = small(name, plain=name in LARGER)
    pixels = torch.rand(2, 3, size, size)
    return Specimen(model, (pixels,), Pixels(model), {"pixel_values": pixels})


def _audio(name: str) -> Specimen:
    model = small(name)
    waves = torch.rand(2, 4000)
    return Specimen(model, (waves,), Waves(model), {"input_values": waves})


MASKED_TEXT = ["bert", "roberta", "distilbert", "gpt2", "llama", "deberta"]
# The names of the models of each kind, how one is built, and what is added to its name.
KINDS: list[tuple[list[str], Callable[[str], Specimen], str]] = [
    (TEXT, _text, ""),
    (MASKED_TEXT, _masked_text, "+mask"),
    (TEXT_TO_TEXT, _text_to_text, ""),
    (VISION, _vision, ""),
    (AUDIO, _audio, ""),
]


def entries() -> Iterator[Entry]:
    """Yield every architecture, the text models with and without a mask."""
    for names, build, suffix in KINDS:
        for name in names:
            yield Entry("transformers", name + suffix, partial(build, name))
