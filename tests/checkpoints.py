"""Checkpoints as training code saves them: one state dict in every layout that is read."""

from __future__ import annotations

import argparse
import copy
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

# Five factories, and the same with one layer changed: `narrow_mlp` is nearly `mlp`.
NETWORKS = '''
import torch
from torch import nn


class Recurrent(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.rnn = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Odd(nn.Module):
    """Has the names of wrappers, a scalar weight, tied weights and a parametrization."""

    def __init__(self, width):
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(2.0))
        self.model = nn.Linear(6, 6)
        self.module = nn.Linear(6, 6)
        self.module.weight = self.model.weight
        self.head = nn.utils.parametrizations.weight_norm(nn.Linear(6, width))
        self.register_buffer("step", torch.tensor(0.5))

    def forward(self, x):
        return self.head(self.module(self.model(x))) * self.logit_scale


def make_mlp(width=8):
    return nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2)
    )


def make_conv(width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2),
    )


def make_attention(width=16):
    return nn.TransformerEncoderLayer(8, 2, width, batch_first=True)


def make_recurrent(width=4):
    return Recurrent(width)


def make_odd(width=2):
    return Odd(width)


def mlp(): return make_mlp()
def conv(): return make_conv()
def attention(): return make_attention()
def recurrent(): return make_recurrent()
def odd(): return make_odd()
def narrow_mlp(): return make_mlp(7)
def narrow_conv(): return make_conv(3)
def narrow_attention(): return make_attention(15)
def narrow_recurrent(): return make_recurrent(3)
def narrow_odd(): return make_odd(1)
def deep_mlp(): return make_mlp().append(nn.Linear(2, 2))
def shallow_mlp(): return make_mlp()[:2]
'''
NAMES = ("mlp", "conv", "attention", "recurrent", "odd")
FOREIGN_MODULE = "training_package_that_is_not_installed"

Weights = Mapping[str, Any]
OLD_FORMAT = {"_use_new_zipfile_serialization": False}


@contextmanager
def foreign_classes() -> Iterator[tuple[type, type]]:
    """Return an own class and an own subclass of dict, whose package is gone after the block."""
    package = ModuleType(FOREIGN_MODULE)
    own = type("Config", (), {"__module__": FOREIGN_MODULE})
    own_dict = type("ConfigDict", (dict,), {"__module__": FOREIGN_MODULE})
    vars(package).update(Config=own, ConfigDict=own_dict)
    sys.modules[FOREIGN_MODULE] = package
    try:
        yield own, own_dict
    finally:
        del sys.modules[FOREIGN_MODULE]


def _prefixed(prefix: str, weights: Weights) -> dict[str, Any]:
    return {prefix + name: value for name, value in weights.items()}


def _in_the_middle(word: str, weights: Weights) -> dict[str, Any]:
    """Put a word behind the first word of each name: `0.weight` becomes `0._orig_mod.weight`."""
    names = {name: name.replace(".", f".{word}.", 1) for name in weights}
    return {names[name]: value for name, value in weights.items()}


def _optimizer(module: nn.Module) -> dict[str, Any]:
    """Return the state of an optimizer after a step: it has tensors of the weights' sizes."""
    module = copy.deepcopy(module)
    optimizer = torch.optim.AdamW(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return dict(optimizer.state_dict())


def _foreign_objects(own: type, own_dict: type) -> dict[str, Any]:
    """Return what training code keeps beside the weights, none of which is ever built."""
    config = own()
    config.content = {"lr": 0.1}
    return {
        "cfg": config,
        "options": own_dict(lr=0.1),
        "args": argparse.Namespace(lr=0.1, output=Path("runs")),
        "path": Path("runs"),
        "accuracy": np.float64(0.3),
        "labels": np.arange(3),
        "history": defaultdict(list, loss=[1.0]),
        "saved": datetime(2026, 11, 1),
        "classes": frozenset(("cat", "dog")),
        "rng": np.random.get_state(),
        "digest": b"1234",
        "activation": nn.functional.relu,
        "class": own,
    }


def _lightning(own: type, weights: Weights) -> dict[str, Any]:
    """Return a checkpoint of PyTorch Lightning."""
    return {
        "epoch": 3,
        "global_step": 10,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": OrderedDict(weights),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'x'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "lr_schedulers": [],
        "hparams_name": "cfg",
        "hyper_parameters": {"cfg": own(), "loss": nn.CrossEntropyLoss(torch.ones(2))},
    }


def _deepspeed(weights: Weights) -> dict[str, Any]:
    """Return a checkpoint of DeepSpeed."""
    return {
        "module": _prefixed("module.", weights),
        "buffer_names": [],
        "optimizer": None,
        "param_shapes": [OrderedDict(w=torch.Size([1]))],
        "ds_config": {"zero_optimization": {"stage": 1}},
        "ds_version": "0.15",
        "args": argparse.Namespace(lr=0.1),
    }


def _negated(weights: Weights) -> dict[str, Any]:
    """Return other values under the same names: those of an average, in which none are the same."""
    return {name: -value for name, value in weights.items()}


def _negative(module: nn.Module) -> nn.Module:
    """Return a copy of a module with other values."""
    other = copy.deepcopy(module)
    other.load_state_dict(_negated(module.state_dict()))
    return other


def _shadow(module: nn.Module) -> dict[str, Any]:
    """Return the state of `torch_ema`: averages without names."""
    shadow = [-parameter.detach() for parameter in module.parameters()]
    return {"decay": 0.99, "num_updates": 7, "shadow_params": shadow, "collected_params": None}


def _reference_script(module: nn.Module) -> dict[str, Any]:
    """Return a checkpoint of torchvision's reference scripts."""
    return {
        "model": module.state_dict(),
        "optimizer": _optimizer(module),
        "lr_scheduler": {"last_epoch": 3, "base_lrs": [0.1], "_schedulers": [{"T_max": 3}]},
        "args": argparse.Namespace(lr=0.1, model="resnet18"),
        "epoch": 3,
        "scaler": {"scale": torch.ones(1)},
        "model_ema": {
            "n_averaged": torch.tensor(3),
            **_prefixed("module.", _negated(module.state_dict())),
        },
    }


def _fairseq(module: nn.Module, own: type) -> dict[str, Any]:
    """Return a checkpoint of fairseq."""
    return {
        "args": None,
        "cfg": own(),
        "model": module.state_dict(),
        "criterion": {"weight": torch.ones(2)},
        "optimizer_history": [{"criterion_name": "x", "num_updates": 7}],
        "task_state": {},
        "extra_state": {"train_iterator": {"epoch": 3}, "val_loss": 0.5},
        "last_optimizer_state": _optimizer(module),
    }


def _nnunet(module: nn.Module) -> dict[str, Any]:
    """Return a checkpoint of nnU-Net."""
    return {
        "network_weights": module.state_dict(),
        "optimizer_state": _optimizer(module),
        "grad_scaler_state": {"scale": 1.0, "_growth_tracker": 0},
        "logging": {"ema_fg_dice": [0.1]},
        "current_epoch": 3,
        "init_args": {"plans": {"name": "x"}, "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1),
    }


Layout = Callable[[nn.Module, type, type], Any]
# Each makes a checkpoint of a module, with an own class and an own subclass of dict.
LAYOUTS: dict[str, Layout] = {
    "plain": lambda module, *_: module.state_dict(),
    "wrapped": lambda module, *_: {
        "epoch": 3,
        "optimizer": _optimizer(module),
        "state_dict": module.state_dict(),
        "scaler": {"scale": torch.ones(1)},
    },
    "a tensor beside the weights": lambda module, *_: {
        "model": _prefixed("_orig_mod.", module.state_dict()),
        "optimizer": _optimizer(module),
        "model_args": {"n_layer": 1},
        "iter_num": 5,
        "best_val_loss": torch.tensor(1.4),
    },
    "numbers among the weights": lambda module, *_: {
        **module.state_dict(),
        "epoch": 3,
        "best_accuracy": torch.tensor(0.5),
        "args": argparse.Namespace(lr=0.1),
    },
    "averaged": lambda module, *_: AveragedModel(module).state_dict(),
    "parallel": lambda module, *_: nn.ModuleDict({"module": module}).state_dict(),
    "compiled": lambda module, *_: nn.ModuleDict({"_orig_mod": module}).state_dict(),
    "stacked": lambda module, *_: _prefixed("module._orig_mod.module.", module.state_dict()),
    "compiled inside": lambda module, *_: _in_the_middle("_orig_mod", module.state_dict()),
    "parallel inside": lambda module, *_: {
        "state_dict": _in_the_middle("module", module.state_dict())
    },
    "an average beside it": lambda module, *_: {
        "ema": {name: -value for name, value in module.state_dict().items()},
        "model": module.state_dict(),
    },
    "nested": lambda module, *_: {"checkpoint": {"models": {"generator": module.state_dict()}}},
    "in a tuple": lambda module, *_: (module.state_dict(), 3),
    "in a dict of its own class": lambda module, _, own_dict: own_dict(
        state_dict=module.state_dict()
    ),
    "lightning": lambda module, own, _: _lightning(own, _prefixed("model.", module.state_dict())),
    "lightning, compiled": lambda module, own, _: _lightning(
        own, _prefixed("net._orig_mod.", module.state_dict())
    ),
    "lightning with a loss": lambda module, own, _: _lightning(
        own, {**_prefixed("model.", module.state_dict()), "criterion.weight": torch.ones(2)}
    ),
    "deepspeed": lambda module, *_: _deepspeed(module.state_dict()),
    "foreign objects": lambda module, own, own_dict: {
        **_foreign_objects(own, own_dict),
        "net": module.state_dict(),
    },
    "model_state": lambda module, *_: {"epoch": 3, "model_state": module.state_dict()},
    "network": lambda module, *_: {"iteration": 3, "network": module.state_dict()},
    "best_model": lambda module, *_: {"best_model": module.state_dict(), "best_loss": 0.5},
    "a loss beside it": lambda module, *_: {
        "epoch": 3,
        "model_state_dict": module.state_dict(),
        "optimizer_state_dict": _optimizer(module),
        "criterion_state_dict": {"weight": torch.ones(2)},
        "loss": torch.tensor(0.5),
    },
    "params_ema of BasicSR": lambda module, *_: {"params_ema": module.state_dict()},
    "params of BasicSR": lambda module, *_: {
        "params_ema": _negated(module.state_dict()),
        "params": module.state_dict(),
    },
    "a generator and a discriminator": lambda module, *_: {
        "generator": module.state_dict(),
        "discriminator": nn.Conv1d(5, 9, 2).state_dict(),
        "optimizer_g": _optimizer(module),
        "optimizer_d": _optimizer(nn.Conv1d(5, 9, 2)),
    },
    "timm": lambda module, *_: {
        "epoch": 3,
        "arch": "resnet18",
        "state_dict": module.state_dict(),
        "optimizer": _optimizer(module),
        "version": 2,
        "args": argparse.Namespace(lr=0.1),
        "amp_scaler": {"scale": 1.0},
        "state_dict_ema": _negated(module.state_dict()),
        "metric": 71.5,
    },
    "torchvision": lambda module, *_: _reference_script(module),
    "fairseq": lambda module, own, _: _fairseq(module, own),
    "nnU-Net": lambda module, *_: _nnunet(module),
    "mmcv": lambda module, own, _: {
        "meta": {"config": "model = dict()", "classes": ("cat", "dog"), "env": own()},
        "message_hub": {"runtime_info": own()},
        "state_dict": module.state_dict(),
        "optimizer": _optimizer(module),
    },
    "torch_ema": lambda module, *_: {"model": module.state_dict(), "ema": _shadow(module)},
    "sharded inside": lambda module, *_: {
        "model": _in_the_middle("_fsdp_wrapped_module", module.state_dict())
    },
    "sharded": lambda module, *_: _prefixed("_fsdp_wrapped_module.", module.state_dict()),
    "parallel twice": lambda module, *_: _prefixed("module.module.", module.state_dict()),
    "checkpointed": lambda module, *_: _prefixed(
        "module._fsdp_wrapped_module._checkpoint_wrapped_module.", module.state_dict()
    ),
    "compiled and averaged": lambda module, *_: {
        "n_averaged": torch.tensor(3),
        **_prefixed("module._orig_mod.", module.state_dict()),
    },
    "numbered": lambda module, *_: {0: module.state_dict(), 1: {"step": 3}},
    "megatron": lambda module, *_: {
        "iteration": 7,
        "model": {"language_model": {"encoder": module.state_dict()}},
        "rng_state": [{"python": None, "torch": torch.arange(3), "cuda": torch.arange(3)}],
        "checkpoint_version": 3.0,
    },
    "ignite": lambda module, *_: {
        "model": module.state_dict(),
        "optimizer": _optimizer(module),
        "trainer": {"epoch_length": 5, "max_epochs": 3, "iteration": 7},
    },
    "parameters": lambda module, *_: OrderedDict(
        (name, nn.Parameter(value, requires_grad=value.is_floating_point()))
        for name, value in module.state_dict().items()
    ),
}
# Those with whole modules, which PyTorch pickles only if Python can import their class, and if they
# have no parametrization.
WHOLE_LAYOUTS: dict[str, Layout] = {
    "ultralytics": lambda module, *_: {
        "epoch": -1,
        "best_fitness": None,
        "model": copy.deepcopy(module),
        "ema": _negative(module),
        "updates": 7,
        "optimizer": None,
        "train_args": {"lr": 0.1},
    },
    "ultralytics, stripped": lambda module, *_: {
        "model": None,
        "ema": copy.deepcopy(module),
        "date": "2026-11-01",
    },
}
PICKLED_NAMES = ("mlp", "conv", "attention")
