"""Suggestions: commands that resolve a finding."""

from __future__ import annotations

from dataclasses import replace

from composecli.core.command_line import command_line
from composecli.core.contract import fresh_name
from composecli.core.dtypes import is_floating
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.input_spec import DeclaredTensor, example_sizes, parse_input
from composecli.core.pytree import Call, TensorSpec, call_leaves

# The sizes of a typical image, for the user to replace.
_IMAGE_SIZES = "N,3,224,224"
_IMAGE_RANK = 4
# A size for the last axis, if a call at the example sizes of the names was refused.
_OTHER_SIZES = (16, 32, 64)
# Stands for a tensor of which every form was refused.
_REFUSED = ""
_NAMES_OF_INTEGERS = ("ids", "mask", "tokens", "labels", "lengths", "positions", "indices", "index")
_LITERALS = {"int": "1", "float": "1.0", "bool": "true", "str": "text"}
_TENSOR_TYPES = ("", "Tensor", "torch.Tensor", "Optional[Tensor]")


def stated_input_help(facts: ModelFacts, tried: tuple[Call, ...]) -> str:
    """Return advice to state the input of a model.

    The inputs have the names and the types of the arguments that a call needs. The user replaces
    their sizes. An input that was refused is not suggested again.
    """
    needed = facts.needed_arguments
    values = list[str]()
    for number, argument in enumerate(needed):
        value = _placeholder(argument, number, facts, tried)
        if len(needed) > 1 and ":=" not in value:
            value = f"{argument.name}={value}"
        values.append(value)
    if not needed:
        values.append(_tensor_placeholder(None, facts.float_dtype, tried))
    if any(_is_nested(argument) for argument in needed) or _REFUSED in values:
        return "save a real input with torch.save, and state it: --input @sample.pt"
    options = " ".join(command_line(["--input", value]) for value in values)
    if len(values) > 1:
        return f"state the real inputs: {options}, with their own dtypes and sizes"
    return f"state a real input: {options}, with its own dtype and sizes"


def _is_nested(argument: ArgumentFact) -> bool:
    """Return whether an argument is neither a tensor nor a value that `--input` can state."""
    return argument.type_name not in (*_TENSOR_TYPES, *_LITERALS)


def _placeholder(
    argument: ArgumentFact, number: int, facts: ModelFacts, tried: tuple[Call, ...]
) -> str:
    """Return the value of `--input` for one argument; `number` is its position."""
    literal = _LITERALS.get(argument.type_name)
    if literal is not None:
        return f"{argument.name}:={literal}"
    best = _tensor_of_best_attempt(argument, number, tried)
    if best is not None and not _may_have_dtype(argument, best.dtype, facts):
        best = replace(best, dtype=facts.float_dtype)
    return _tensor_placeholder(best, facts.float_dtype, tried)


def _may_have_dtype(argument: ArgumentFact, dtype: str, facts: ModelFacts) -> bool:
    """Whether an argument of a model with these weights may have this dtype.

    Integers are ids or masks, which the name of the argument or an embedding tells.
    """
    if not facts.dtypes:
        return True
    if is_floating(dtype):
        return dtype in facts.dtypes
    if argument.name.endswith(_NAMES_OF_INTEGERS):
        return True
    return any("Embedding" in layer.class_name for layer in facts.layers)


def _tensor_of_best_attempt(
    argument: ArgumentFact, number: int, tried: tuple[Call, ...]
) -> TensorSpec | None:
    """Return the tensor that the best attempt passed for an argument; None if it passed none."""
    if not tried:
        return None
    passed = tried[0].arguments
    values = [item.value for item in passed if item.name == argument.name]
    if not values and number < len(passed) and passed[number].name is None:
        values = [passed[number].value]
    if values and isinstance(values[0], TensorSpec):
        return values[0]
    return None


def _tensor_placeholder(best: TensorSpec | None, float_dtype: str, tried: tuple[Call, ...]) -> str:
    """Return a tensor to edit that no refused call had; `_REFUSED` if there is none.

    It has the dtype and the rank of the best attempt, and names in place of its sizes.
    """
    refused = list[TensorSpec]()
    for call in tried:
        refused += [spec for _, spec in call_leaves(call)]
    if best is None:
        best = TensorSpec(float_dtype, (1,) * _IMAGE_RANK)
    for sizes in _sizes_to_replace(best):
        text = f"{best.dtype}[{sizes}]"
        if not _is_among(text, refused):
            return text
    return _REFUSED


def _sizes_to_replace(spec: TensorSpec) -> list[str]:
    """Return sizes for a tensor of this rank, best first: `N,3,224,224`, `N,C,H,W`, `N,C,H,16`."""
    names = set[str]()
    axes = [fresh_name(spec, axis, names) for axis in range(len(spec.sizes))]
    choices = [",".join(axes)]
    if len(axes) == _IMAGE_RANK and is_floating(spec.dtype):
        choices.insert(0, _IMAGE_SIZES)
    for size in _OTHER_SIZES:
        choices.append(",".join([*axes[:-1], str(size)]))
    return choices


def _is_among(text: str, tensors: list[TensorSpec]) -> bool:
    """Return whether one of these tensors is declared by an `--input`, for any batch size."""
    declared = parse_input(text)
    assert isinstance(declared, DeclaredTensor)
    sizes = example_sizes(declared.dims)
    for tensor in tensors:
        if tensor.dtype == declared.dtype and tensor.sizes[1:] == sizes[1:]:
            return True
    return False
