"""Suggestions: commands that resolve a finding."""

from __future__ import annotations

import shlex
from dataclasses import replace

from composecli.commands.requests import CheckRequest
from composecli.compose.wiring import selector
from composecli.core.contract import Contract, accepts, fresh_name
from composecli.core.dtypes import is_floating
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.findings import Finding, Fix
from composecli.core.input_spec import DeclaredTensor, example_sizes, parse_input
from composecli.core.pytree import Call, TensorSpec, Tree, call_leaves, keystr, leaves
from composecli.core.rules import Rule

# The sizes of a typical image, for the user to replace.
_IMAGE_SIZES = "N,3,224,224"
_IMAGE_RANK = 4
# A size for the last axis, if a call at the example sizes of the names was refused.
_OTHER_SIZES = (16, 32, 64)
_LITERALS = {"int": "1", "float": "1.0", "bool": "true", "str": "text"}
_TENSOR_TYPES = ("", "Tensor", "torch.Tensor", "Optional[Tensor]")


def with_select_fix(
    finding: Finding, request: CheckRequest, number: int, result: Tree, contract: Contract | None
) -> Finding:
    """Return the finding with the `--select` that resolves it, if there is one.

    That is the first output of model `number` that the only input of the next model accepts.
    """
    if finding.rule is not Rule.STRUCTURE_DIFFERS:
        return finding
    if contract is None or len(contract.required) != 1:
        return finding
    port = contract.inputs[0]
    paths = [path for path, spec in leaves(result) if accepts(port, spec) is not False]
    if not paths:
        return finding
    selection = selector(result, paths[0])
    if len(request.models) > 2:
        selection = f"{number}:{selection}"
    command = request.command("--select", selection, name="check")
    effect = f"feeds {keystr(paths[0])} to {port.name}"
    fix = Fix(command, (effect,))
    return replace(finding, fix=fix)


def stated_input_fix(model: str, facts: ModelFacts, tried: tuple[Call, ...]) -> Fix:
    """Return an `inspect` command whose inputs the user has to complete.

    The inputs have the names and the types of the arguments that a call needs. The user replaces
    their sizes. An input that was refused is not suggested again.
    """
    needed = facts.needed_arguments
    if any(_is_nested(argument) for argument in needed):
        command = shlex.join(["composecli", "inspect", model, "--input", "@sample.pt"])
        return Fix(command, ("where sample.pt contains real inputs, saved with torch.save",))
    words = ["composecli", "inspect", model]
    for number, argument in enumerate(needed):
        value = _placeholder(argument, number, facts.float_dtype, tried)
        if len(needed) > 1 and ":=" not in value:
            value = f"{argument.name}={value}"
        words += ["--input", value]
    if not needed:
        value = _tensor_placeholder(None, facts.float_dtype, tried)
        words += ["--input", value]
    effect = "replace the dtype and sizes with those of the real input"
    if len(needed) > 1:
        effect = "replace the dtype and sizes with those of each real input"
    return Fix(shlex.join(words), (effect,))


def _is_nested(argument: ArgumentFact) -> bool:
    """Return whether an argument is neither a tensor nor a value that `--input` can state."""
    return argument.type_name not in (*_TENSOR_TYPES, *_LITERALS)


def _placeholder(
    argument: ArgumentFact, number: int, float_dtype: str, tried: tuple[Call, ...]
) -> str:
    """Return the value of `--input` for one argument; `number` is its position."""
    literal = _LITERALS.get(argument.type_name)
    if literal is not None:
        return f"{argument.name}:={literal}"
    best = _tensor_of_best_attempt(argument, number, tried)
    return _tensor_placeholder(best, float_dtype, tried)


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
    """Return a tensor to edit that no refused call had, if possible.

    It has the dtype and the rank of the best attempt, and names in place of its sizes.
    """
    refused = list[TensorSpec]()
    for call in tried:
        refused += [spec for _, spec in call_leaves(call)]
    if best is None:
        best = TensorSpec(float_dtype, (1,) * _IMAGE_RANK)
    text = ""
    for sizes in _sizes_to_replace(best):
        text = f"{best.dtype}[{sizes}]"
        if not _is_among(text, refused):
            break
    return text


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
