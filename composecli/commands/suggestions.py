"""Suggestions: commands that resolve a finding."""

from __future__ import annotations

import shlex
from dataclasses import replace

from composecli.commands.requests import CheckRequest
from composecli.compose.wiring import selector
from composecli.core.contract import Contract, accepts
from composecli.core.facts import ArgumentFact, ModelFacts
from composecli.core.findings import Finding, Fix
from composecli.core.input_spec import DeclaredTensor, example_sizes, parse_input
from composecli.core.pytree import Call, TensorSpec, Tree, call_leaves, keystr, leaves
from composecli.core.rules import Rule

# Sizes for the user to replace: those of a typical image, then names by convention.
_SIZES_TO_REPLACE = ("N,3,224,224", "N,C,H,W", "N,T,D", "N,D")
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
    return replace(finding, fix=Fix(command, (f"feeds {keystr(paths[0])} to {port.name}",)))


def stated_input_fix(model: str, facts: ModelFacts, tried: tuple[Call, ...]) -> Fix:
    """Return an `inspect` command whose inputs the user has to complete.

    The inputs have the names and the types of the arguments that a call needs. The user replaces
    their sizes. An input that was refused is not suggested again.
    """
    needed = facts.needed_arguments
    if any(_is_nested(argument) for argument in needed):
        command = shlex.join(["composecli", "inspect", model, "--input", "@sample.pt"])
        return Fix(command, ("where sample.pt holds real inputs, saved with torch.save",))
    words = ["composecli", "inspect", model]
    for argument in needed:
        words += ["--input", _placeholder(argument, facts.float_dtype, tried, len(needed))]
    if not needed:
        words += ["--input", _tensor_placeholder(facts.float_dtype, tried)]
    effect = "with the real dtype and sizes of the input in place of these"
    if len(needed) > 1:
        effect = "with the real dtype and sizes of each input in place of these"
    return Fix(shlex.join(words), (effect,))


def _is_nested(argument: ArgumentFact) -> bool:
    """Return whether an argument is neither a tensor nor a value that `--input` can state."""
    return argument.type_name not in (*_TENSOR_TYPES, *_LITERALS)


def _placeholder(
    argument: ArgumentFact, float_dtype: str, tried: tuple[Call, ...], arguments: int
) -> str:
    literal = _LITERALS.get(argument.type_name)
    if literal is not None:
        return f"{argument.name}:={literal}"
    tensor = _tensor_placeholder(float_dtype, tried)
    if arguments == 1:
        return tensor
    return f"{argument.name}={tensor}"


def _tensor_placeholder(dtype: str, tried: tuple[Call, ...]) -> str:
    refused = list[TensorSpec]()
    for call in tried:
        refused += [spec for _, spec in call_leaves(call)]
    for sizes in _SIZES_TO_REPLACE:
        text = f"{dtype}[{sizes}]"
        if not _is_among(text, refused):
            break
    return text


def _is_among(text: str, tensors: list[TensorSpec]) -> bool:
    """Return whether one of these tensors is declared by an `--input`, for any batch size."""
    declared = parse_input(text)
    assert isinstance(declared, DeclaredTensor)
    sizes = example_sizes(declared.dims)
    for tensor in tensors:
        if tensor.dtype == declared.dtype and tensor.sizes[1:] == sizes[1:]:
            return True
    return False
