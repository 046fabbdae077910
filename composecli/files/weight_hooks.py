"""Hooks of torch.nn.utils: they compute a weight before each forward, from others of their layer.

`torch.save` keeps them in a module that is pruned, or that has the older weight or spectral norm.
They only compute, and have nothing but numbers, a mask, and the name of the weight.

Source: `prune.py`, `weight_norm.py` and `spectral_norm.py` in `torch/nn/utils`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from composecli.files.pickle import Constructed, Global, PickleDict

_SPECTRAL = "torch.nn.utils.spectral_norm"
_PRUNE = "torch.nn.utils.prune"
# torch puts a hook of `load_state_dict` into an object of this class.
_WRAPPER = "torch.nn.modules.module._WrappedHook"
_MASKS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter")

PRUNING = ("Identity", "RandomUnstructured", "L1Unstructured", "RandomStructured", "LnStructured",
           "CustomFromMask")  # fmt: skip
_CONTAINER = "PruningContainer"

Check = Callable[[object], bool]


def _is_number(value: object) -> bool:
    """Return whether this is an integer, a float or a flag."""
    return isinstance(value, int | float)


def _is_name(value: object) -> bool:
    """Return whether this may be the name of a weight."""
    return isinstance(value, str) and value.isidentifier() and not value.startswith("_")


def _is_order(value: object) -> bool:
    """Return whether this names a norm: a number, or a word such as `fro`."""
    return _is_number(value) or value in ("fro", "nuc")


def _is_dim(value: object) -> bool:
    """Return whether this is an axis, or None for all axes."""
    return value is None or isinstance(value, int)


def _is_mask(value: object) -> bool:
    """Return whether this is a tensor."""
    return isinstance(value, Constructed) and str(value.function) in _MASKS


def _are_methods(value: object) -> bool:
    """Return whether these are the methods of pruning that were applied one after the other."""
    methods = tuple(f"{_PRUNE}.{name}" for name in PRUNING)
    return isinstance(value, tuple) and all(_is_one_of(item, methods) for item in value)


def _is_spectral(value: object) -> bool:
    """Return whether this is the hook of a spectral norm."""
    return _is_one_of(value, (f"{_SPECTRAL}.SpectralNorm",))


def _is_wrapped(value: object) -> bool:
    """Return whether this is the hook that loads the weights of a spectral norm."""
    return _is_one_of(value, (f"{_SPECTRAL}.SpectralNormLoadStateDictPreHook",))


_PRUNING_STATE: Mapping[str, Check] = {
    "_tensor_name": _is_name,
    "amount": _is_number,
    "n": _is_order,
    "dim": _is_dim,
    "mask": _is_mask,
}
# The attributes that each hook may have.
_STATES: Mapping[str, Mapping[str, Check]] = {
    "torch.nn.utils.weight_norm.WeightNorm": {"name": _is_name, "dim": _is_dim},
    f"{_SPECTRAL}.SpectralNorm": {
        "name": _is_name,
        "dim": _is_dim,
        "n_power_iterations": _is_number,
        "eps": _is_number,
    },
    f"{_SPECTRAL}.SpectralNormStateDictHook": {"fn": _is_spectral},
    f"{_SPECTRAL}.SpectralNormLoadStateDictPreHook": {"fn": _is_spectral},
    _WRAPPER: {"hook": _is_wrapped, "with_module": lambda value: value is False},
    f"{_PRUNE}.{_CONTAINER}": {"_tensor_name": _is_name, "_pruning_methods": _are_methods},
    **{f"{_PRUNE}.{name}": _PRUNING_STATE for name in PRUNING},
}
WEIGHT_HOOKS = tuple(_STATES)


def is_weight_hook(value: object) -> bool:
    """Return whether an object is such a hook, with the attributes that torch gives it."""
    return _is_one_of(value, WEIGHT_HOOKS)


def _is_one_of(value: object, names: tuple[str, ...]) -> bool:
    """Return whether an object is a hook of one of these classes; see `is_weight_hook`."""
    match value:
        case Constructed(Global() as kind, (), is_new=True, state=PickleDict(attributes), items=[]):
            if str(kind) not in names:
                return False
        case _:
            return False
    tests = _STATES[str(kind)]
    return all(key in tests and tests[str(key)](item) for key, item in attributes)
