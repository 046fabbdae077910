"""The inputs and outputs of an exported program's graph, read from its JSON.

torch.export lifts the tensors of a model: they become inputs of the graph, in front of those that a
caller passes. A buffer that the model writes to becomes an output, whose value is copied back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from torch.utils._pytree import TreeSpec

from composecli.runtime.pt2.nodes import Unsupported
from composecli.runtime.pt2.schema import Argument, InputSpec, OutputSpec, Reference, StoredTensor

_OUTPUT_KINDS = ("user_output", "buffer_mutation", "user_input_mutation")


@dataclass(frozen=True)
class LiftedTensor:
    """A tensor of the model that is an input of the graph, where it has the name `value`."""

    value: str
    module: str
    attribute: str
    parameter: bool


@dataclass(frozen=True)
class Mutation:
    """At the end, the value named `source` is copied into the value named `target`."""

    target: str
    source: str


def lifted_tensors(specs: Sequence[InputSpec]) -> Iterator[LiftedTensor]:
    """Yield the tensors of the model among the inputs of the graph.

    Raises:
        Unsupported: if there is an input of another kind, such as an object of an extension.
    """
    for spec in specs:
        if "parameter" in spec:
            weight = spec["parameter"]
            yield _lifted(weight, weight.get("parameter_name"), parameter=True)
        elif "buffer" in spec:
            buffer = spec["buffer"]
            yield _lifted(buffer, buffer.get("buffer_name"), parameter=False)
        elif "tensor_constant" in spec:
            constant = spec["tensor_constant"]
            yield _lifted(constant, constant.get("tensor_constant_name"), parameter=False)
        elif "user_input" not in spec and "constant_input" not in spec:
            (kind,) = spec
            raise Unsupported(f"an input of the kind {kind}")


def _lifted(stored: StoredTensor, path: str | None, *, parameter: bool) -> LiftedTensor:
    """Return a tensor of the model by its path, such as `encoder.fc.weight`."""
    module, _, attribute = str(path).rpartition(".")
    value = stored["arg"]["name"]
    return LiftedTensor(value, module, attribute, parameter)


def user_inputs(specs: Sequence[InputSpec]) -> Iterator[str]:
    """Yield the name in the graph of each leaf that a caller passes, in order."""
    for number, spec in enumerate(specs):
        if "user_input" in spec:
            name = _input_name(spec["user_input"]["arg"])
            yield name or f"constant {number}"
        elif "constant_input" in spec:
            yield str(spec["constant_input"]["name"])


def _input_name(argument: Argument) -> str:
    """Return the name of an input; empty for a constant, which no op refers to."""
    reference: Reference = {}
    if argument.get("as_tensor"):
        reference = cast(Reference, argument["as_tensor"])
    elif argument.get("as_sym_int"):
        reference = argument["as_sym_int"]
    name = reference.get("name") or reference.get("as_name")
    return str(name or "")


def user_outputs(specs: Sequence[OutputSpec]) -> list[Argument]:
    """Return the outputs that a caller gets, in order."""
    return [spec["user_output"]["arg"] for spec in specs if "user_output" in spec]


def mutations(inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec]) -> Iterator[Mutation]:
    """Yield what is written to buffers and inputs at the end, buffers first.

    Raises:
        Unsupported: if there is an output of another kind, such as a gradient.
    """
    for output in outputs:
        for kind in output:
            if kind not in _OUTPUT_KINDS:
                raise Unsupported(f"an output of the kind {kind}")
    buffers = dict[str, str]()
    for spec in inputs:
        if "buffer" in spec:
            buffer = spec["buffer"]
            buffers[buffer["buffer_name"]] = buffer["arg"]["name"]
    for output in outputs:
        if "buffer_mutation" in output:
            written = output["buffer_mutation"]
            yield Mutation(buffers[written["buffer_name"]], written["arg"]["name"])
    for output in outputs:
        if "user_input_mutation" in output:
            changed = output["user_input_mutation"]
            yield Mutation(changed["user_input_name"], changed["arg"]["name"])


def argument_names(spec: TreeSpec, names: Sequence[str]) -> Iterator[str]:
    """Yield the names of the arguments that a caller passes: by position, and then by keyword.

    `names` may be shorter than the positional arguments: the others are numbered.
    """
    positional, _ = spec.children()
    count = len(positional.children())
    yield from names[:count]
    for number in range(len(names), count):
        yield f"input {number}"
    yield from keyword_names(spec)


def keyword_names(spec: TreeSpec) -> list[str]:
    """Return the names of the keyword arguments, in the order of the program."""
    _, named = spec.children()
    return list(named.context or [])
