"""Stated inputs: the values of `--input` as a call of the first model."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import assert_never

from composecli.core.blueprint import Settings
from composecli.core.contract import Evidence, EvidenceKind
from composecli.core.dims import Free, Shape, free_dims, is_variable
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ModelFacts
from composecli.core.input_spec import (
    Declared,
    DeclaredLiteral,
    DeclaredSample,
    DeclaredTensor,
    example_by_name,
    example_sizes,
)
from composecli.core.model_ref import ModelKind
from composecli.core.pytree import Argument, Call, KeyPath, Literal, TensorSpec
from composecli.core.relations import Where, format_where, sizes_meeting
from composecli.core.rules import Rule
from composecli.inference.candidates import Candidate
from composecli.workers.protocol import SampleRequest, Worker

# The path of an input, and its dims.
StatedDims = tuple[KeyPath, Shape]


def state_inputs(
    inputs: tuple[Declared, ...], model: str, facts: ModelFacts, kind: ModelKind, worker: Worker
) -> Candidate:
    """Return the call that the inputs declare, with the dims that they name.

    `float32[N,10]` and `rate:=16000` are the call `float32[2, 10], 16000` and the dims `(N, 10)` of
    its first argument. A tensor without a dtype has the float dtype of the model, and its sizes are
    no more than an example.

    Raises:
        CouldNotAttempt: if the model has no argument of that name, or a sample is unreadable.
    """
    arguments = list[Argument]()
    stated_dims = list[StatedDims]()
    where = tuple(relation for declared in inputs for relation in _relations(declared))
    sizes = _related_sizes(inputs, where, model)
    for declared in inputs:
        refuse_unknown_name(declared, model, facts, kind)
        match declared:
            case DeclaredSample(path):
                sample = worker.ask(SampleRequest(path))
                arguments += sample.call.arguments
            case DeclaredLiteral(name):
                value = _literal(declared, name, facts)
                arguments.append(Argument(value, name))
            case DeclaredTensor():
                if _states_dims(declared):
                    path_of_next = (len(arguments),)
                    stated_dims.append((path_of_next, declared.dims))
                arguments.append(_tensor_argument(declared, facts, sizes))
            case _:
                assert_never(declared)
    evidence = Evidence(EvidenceKind.DECLARED)
    return Candidate(Call(tuple(arguments)), evidence, tuple(stated_dims), where=where)


def _relations(declared: Declared) -> Where:
    """Return the relations that an input states."""
    if isinstance(declared, DeclaredTensor):
        return declared.where
    return ()


def _related_sizes(inputs: tuple[Declared, ...], where: Where, model: str) -> dict[str, int]:
    """Return sizes of the names in relations at which these hold; empty if there are none.

    Raises:
        CouldNotAttempt: if a relation has a name that no input has, or no sizes meet them all.
    """
    if not where:
        return {}
    ranges = dict[str, Free]()
    sizes = dict[str, int]()
    for declared in inputs:
        if isinstance(declared, DeclaredTensor):
            ranges |= {free.name: free for free in free_dims(declared.dims)}
            sizes |= example_by_name(declared.dims, sizes)
    meeting = sizes_meeting(where, ranges, sizes)
    if meeting is None:
        title = f"no sizes were found that meet what is stated{format_where(where)}"
        unknown = sorted(frozenset().union(*(each.symbols for each in where)) - sizes.keys())
        notes = tuple(f"no input has a dim {name}" for name in unknown)
        raise CouldNotAttempt(Problem(Rule.INPUT_DOES_NOT_APPLY, title, model, notes))
    return meeting


def state_settings(inputs: tuple[Declared, ...], facts: ModelFacts) -> Settings:
    """Return the plain values among the inputs, by the names of the arguments that they are for.

    One without a name is for the argument at its place among the inputs.
    """
    settings = list[Argument]()
    for number, declared in enumerate(inputs):
        if not isinstance(declared, DeclaredLiteral):
            continue
        name = declared.name
        if name is None and number < len(facts.arguments):
            name = facts.arguments[number].name
        if name is not None:
            settings.append(Argument(_literal(declared, name, facts), name))
    return tuple(settings)


def without_settings(call: Call, settings: Settings, facts: ModelFacts) -> Call:
    """Return the call without the arguments that these plain values are for."""
    stated = {argument.name for argument in settings}
    names = argument_names(call, facts)
    arguments = list[Argument]()
    for name, argument in zip(names, call.arguments, strict=True):
        if name is None or name not in stated:
            arguments.append(argument)
    return Call(tuple(arguments))


def with_named_values(call: Call, facts: ModelFacts) -> Call:
    """Return the call with the plain values at its end by name, where a model may have its own."""
    names = argument_names(call, facts)
    arguments = list(call.arguments)
    for number in reversed(range(len(arguments))):
        argument = arguments[number]
        if not isinstance(argument.value, Literal):
            break
        arguments[number] = replace(argument, name=names[number])
    return Call(tuple(arguments))


def argument_names(call: Call, facts: ModelFacts) -> list[str | None]:
    """Return the name of each argument of a call, as the model has it; None if it has none."""
    in_order = iter(facts.arguments)
    names = list[str | None]()
    for argument in call.arguments:
        name = argument.name
        own = None
        if name is None:
            own = next(in_order, None)
        if own is not None:
            name = own.name
        names.append(name)
    return names


def _literal(declared: DeclaredLiteral, name: str | None, facts: ModelFacts) -> Literal:
    """Return a plain value; TorchScript takes no integer where it has a float."""
    value = declared.value
    types = {argument.name: argument.type_name for argument in facts.arguments}
    if type(value) is int and types.get(name or "") == "float":
        return Literal(float(value))
    return Literal(value)


def refuse_inputs_of_no_model(inputs: tuple[Declared, ...], count: int) -> None:
    """Refuse an input of a model that gets none: only those in a chain of `count` models do.

    Raises:
        CouldNotAttempt: if there is one.
    """
    for declared in inputs:
        if declared.model > count:
            stated = f"--input states an input of model {declared.model}"
            title = f"{stated}, but the last model is number {count}"
            help = ("a number names a model of a chain: --input '2:ids=int64[N,T]'",)
            raise CouldNotAttempt(Problem(Rule.INPUT_DOES_NOT_APPLY, title, help=help))


def refuse_tensors_of_branches(inputs: tuple[Declared, ...]) -> None:
    """Refuse a tensor for a later one of parallel models, which share their tensors.

    Raises:
        CouldNotAttempt: if there is one.
    """
    for declared in inputs:
        if declared.model > 1 and not isinstance(declared, DeclaredLiteral):
            title = f"--input states a tensor of model {declared.model} alone, in parallel"
            help = ("parallel models share their tensors; one may have a plain value: 2:rate:=5",)
            raise CouldNotAttempt(Problem(Rule.INPUT_DOES_NOT_APPLY, title, help=help))


def is_partial(stated: Candidate, facts: ModelFacts) -> bool:
    """Return whether the model needs other arguments than those that are stated, all by name."""
    names = {argument.name for argument in stated.call.arguments}
    needed = {argument.name for argument in facts.needed_arguments}
    return None not in names and not needed <= names


def _states_dims(declared: DeclaredTensor) -> bool:
    """Return whether the dims are a statement about the model, and not only an example."""
    if declared.dtype is not None:
        return True
    return any(is_variable(dim) for dim in declared.dims)


def _tensor_argument(
    declared: DeclaredTensor, facts: ModelFacts, sizes: dict[str, int]
) -> Argument:
    """Return an example of a tensor. Add the sizes of its names to `sizes`: they are used again."""
    chosen = example_sizes(declared.dims, sizes)
    sizes |= example_by_name(declared.dims, sizes)
    dtype = declared.dtype or facts.float_dtype
    return Argument(TensorSpec(dtype, chosen), declared.name)


def refuse_unknown_name(declared: Declared, model: str, facts: ModelFacts, kind: ModelKind) -> None:
    """Refuse an input whose name the model does not have.

    Raises:
        CouldNotAttempt: if the file lists the arguments of the model and this name is not one.
    """
    if isinstance(declared, DeclaredSample) or not kind.traits.lists_arguments:
        return
    names = [argument.name for argument in facts.arguments]
    if declared.name is None or declared.name in names:
        return
    inputs = ", ".join(names) or "none"
    title = f"the model has no input {declared.name}"
    close = get_close_matches(declared.name, names, 1)
    help = tuple(f"name it as the model does: --input '{name}=...'" for name in close)
    notes = (f"its inputs: {inputs}",)
    problem = Problem(Rule.INPUT_DOES_NOT_APPLY, title, model, notes, help)
    raise CouldNotAttempt(problem)
