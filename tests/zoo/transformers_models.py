"""Small random configurations of transformers: text, vision, audio and several of these at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tests.zoo.operators import declare
from tests.zoo.specimens import Entry, Specimen

TEXT = [
    "bert", "roberta", "albert", "distilbert", "electra", "deberta", "deberta-v2", "mpnet", "camembert",
    "xlm-roberta", "convbert", "fnet", "squeezebert", "mobilebert", "big_bird", "nystromformer", "roformer",
    "rembert", "ernie", "ibert", "megatron-bert", "xlm", "flaubert", "layoutlm", "canine", "yoso", "mra",
    "markuplm", "data2vec-text", "modernbert", "nomic_bert", "splinter", "gpt2", "gpt_neox", "opt", "bloom",
    "llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "phi3", "mpt", "ctrl",
    "openai-gpt", "biogpt", "stablelm", "olmo", "starcoder2", "granite", "cohere", "mamba", "falcon_mamba",
    "rwkv", "xglm", "persimmon", "gpt_bigcode", "clip_text_model", "imagegpt", "visual_bert", "tapas",
    "longformer",
]  # fmt: skip
TEXT_TO_TEXT = [
    "t5", "mt5", "bart", "mbart", "pegasus", "marian", "blenderbot", "longt5", "m2m_100", "plbart",
    "switch_transformers", "umt5",
]  # fmt: skip
VISION = [
    "vit", "deit", "beit", "dinov2", "resnet", "regnet", "mobilenet_v1", "mobilenet_v2", "mobilevit",
    "poolformer", "pvt", "pvt_v2", "segformer", "cvt", "focalnet", "ijepa", "vit_msn", "bit", "swiftformer",
    "textnet", "siglip_vision_model", "clip_vision_model", "dpt", "glpn", "data2vec-vision", "yolos",
    "dinov3_vit", "aimv2_vision_model", "swin", "convnext", "convnextv2", "levit",
]  # fmt: skip
AUDIO = [
    "wav2vec2", "hubert", "wavlm", "sew", "sew-d", "unispeech", "data2vec-audio", "wav2vec2-conformer",
]  # fmt: skip
LARGER = {"swin": 224, "convnext": 64, "convnextv2": 64, "levit": 224}
SMALL = {
    "vocab_size": 99, "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "num_hidden_layers": 2, "n_layer": 2,
    "n_layers": 2, "encoder_layers": 2, "decoder_layers": 2, "num_layers": 2, "num_attention_heads": 4, "n_head": 4,
    "n_heads": 4, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_heads": 4, "intermediate_size": 64,
    "ffn_dim": 64, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_ff": 64, "hidden_dim": 64,
    "max_position_embeddings": 64, "n_positions": 64, "num_key_value_heads": 4, "embedding_size": 32, "head_dim": 8,
    "d_kv": 8, "image_size": 32, "patch_size": 8, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3,
}  # fmt: skip


class Plain(nn.Module):
    """The model with tensors in and a tuple of tensors out; the subclasses name its inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Ids(Plain):
    def forward(self, input_ids: torch.Tensor) -> Any:
        return _tensors(self.model(input_ids=input_ids, return_dict=False))


class MaskedIds(Plain):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        return _tensors(
            self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)
        )


class TwoIds(Plain):
    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> Any:
        return _tensors(
            self.model(input_ids=input_ids, decoder_input_ids=decoder_input_ids, return_dict=False)
        )


class Pixels(Plain):
    def forward(self, pixel_values: torch.Tensor) -> Any:
        return _tensors(self.model(pixel_values, return_dict=False))


class Waves(Plain):
    def forward(self, input_values: torch.Tensor) -> Any:
        return _tensors(self.model(input_values, return_dict=False))


def _tensors(result: Any) -> Any:
    return tuple(item for item in result if isinstance(item, torch.Tensor))


def small(name: str, *, plain: bool = False) -> nn.Module:
    """The base model of an architecture, with every size of its configuration that has a usual name made small; as it
    is by default where it is `plain`."""
    declare()
    import transformers

    transformers.logging.set_verbosity_error()
    kind = type(transformers.AutoConfig.for_model(name))
    default = kind()
    settings = {
        key: value for key, value in SMALL.items() if type(getattr(default, key, None)) is int
    }
    config = default if plain else kind(**settings)
    config.use_cache = False
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(config).eval()


def _ids(*sizes: int) -> torch.Tensor:
    return torch.randint(4, 99, sizes)


def _text(name: str) -> Specimen:
    model, ids = small(name), _ids(2, 12)
    return Specimen(model, (ids,), Ids(model), {"input_ids": ids})


def _masked_text(name: str) -> Specimen:
    model, ids = small(name), _ids(2, 12)
    mask = torch.ones_like(ids)
    return Specimen(
        model, (ids, mask), MaskedIds(model), {"input_ids": ids, "attention_mask": mask}
    )


def _text_to_text(name: str) -> Specimen:
    model, ids, more = small(name), _ids(2, 12), _ids(2, 7)
    return Specimen(
        model, (ids, more), TwoIds(model), {"input_ids": ids, "decoder_input_ids": more}
    )


def _vision(name: str) -> Specimen:
    size = LARGER.get(name, 32)
    model, pixels = small(name, plain=name in LARGER), torch.rand(2, 3, size, size)
    return Specimen(model, (pixels,), Pixels(model), {"pixel_values": pixels})


def _audio(name: str) -> Specimen:
    model, waves = small(name), torch.rand(2, 4000)
    return Specimen(model, (waves,), Waves(model), {"input_values": waves})


def entries() -> Iterator[Entry]:
    kinds: Mapping[str, tuple[list[str], Any]] = {
        "": (TEXT, _text),
        "+mask": (["bert", "roberta", "distilbert", "gpt2", "llama", "deberta"], _masked_text),
        "+decoder": (TEXT_TO_TEXT, _text_to_text),
        "+image": (VISION, _vision),
        "+audio": (AUDIO, _audio),
    }
    for suffix, (names, build) in kinds.items():
        for name in names:
            label = name + (suffix if suffix == "+mask" else "")
            yield Entry("transformers", label, lambda name=name, build=build: build(name))  # type: ignore[misc]
