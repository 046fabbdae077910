"""Making a part of a joined file: a model as TorchScript, as it is, scripted, or traced.

Each way is tried on the values that the model gets: it has to compile where the joined forward
calls it, and to return the same as the model in Python.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.facts import ArgumentFact
from composecli.core.pytree import (
    Call,
    KeyPath,
    Literal,
    TensorSpec,
    Tree,
    TreeSequence,
    get_path,
    leaves,
)
from composecli.core.rules import Rule
from composecli.runtime.error_text import telling_line
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import get_value
from composecli.runtime.joining.allclose import allclose
from composecli.runtime.joining.forward_source import (
    FlatResult,
    PartForm,
    joined_signature,
    single_call_source,
)
from composecli.runtime.joining.tracing import Passed, Trace, trace
from composecli.runtime.loading.torchscript import script_arguments
from composecli.runtime.model import Model
from composecli.runtime.tensors import tensors_in, tree_of

_ONE_PATH = "one path through its code is kept"
_OTHER_WAY = (
    "torch.export follows more of Python: save the model with torch.export.save, and join that file"
)


@dataclass(frozen=True)
class Part:
    """A model as TorchScript, how it is called, and its arguments.

    `note` states what is lost, and `functions` are the autograd functions whose backward is.
    """

    script: torch.jit.ScriptModule
    arguments: tuple[ArgumentFact, ...]
    form: PartForm = field(default_factory=PartForm)
    note: str | None = None
    functions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Use:
    """The use of a model in a joined file: the arguments, and the parts of the result.

    `inner`: gradients flow through the arguments, because another part computed them.
    """

    passed: Passed
    paths: tuple[KeyPath, ...]
    inner: bool = False

    def copied_values(self) -> list[Any]:
        """Return copies of the values, with gradients if these flow through them."""
        values = list(copy.deepcopy(self.passed.values))
        if self.inner and torch.is_grad_enabled():
            for tensor in tensors_in(values):
                if tensor.is_floating_point():
                    tensor.requires_grad_()
        return values


@dataclass(frozen=True)
class _Rejected:
    """A way that does not do. `reason` completes the note "... was traced: "."""

    reason: str


@dataclass(frozen=True)
class _Expected:
    """The result of the model in Python: the parts that are used, and all tensors in them.

    `gradients` tells which tensors require gradients; None if it runs only without.
    """

    results: dict[KeyPath, Tree]
    tensors: list[torch.Tensor]
    gradients: list[bool] | None


def as_part(script: torch.jit.ScriptModule) -> Part:
    """Return a model that is TorchScript already."""
    return Part(script, script_arguments(script))


def make_part(model: Model, use: Use) -> Part:
    """Return a model as a part: scripted, or else traced at the values that are passed.

    Raises:
        CouldNotAttempt: if neither is possible.
    """
    expected = _run_in_python(model, use)
    rejected = list[_Rejected]()
    for candidate in _candidates(model, use, expected, rejected):
        for part in _variants(candidate, expected):
            failure = _failure(part, model, use, expected)
            if failure is None:
                return _finished(part, model, rejected)
            rejected.append(failure)
    reasons = (failure.reason.removesuffix(f": {_ONE_PATH}") for failure in rejected)
    help: tuple[str, ...] = ()
    if model.switchable:
        help = (_OTHER_WAY,)
    raise could_not_build(model.name, *dict.fromkeys(reasons), help=help)


def could_not_build(names: str, *notes: str, help: tuple[str, ...] = ()) -> CouldNotAttempt:
    """Return the error that names the parts, with the reasons."""
    title = "PyTorch could not build one TorchScript module from the models"
    problem = Problem(Rule.COULD_NOT_BUILD, title, names, notes, help)
    return CouldNotAttempt(problem)


def _candidates(
    model: Model, use: Use, expected: _Expected, rejected: list[_Rejected]
) -> Iterator[Part]:
    """Yield the model in each way that torch can convert it; note the others as rejected."""
    scripted = _script(model)
    if isinstance(scripted, _Rejected):
        rejected.append(scripted)
    else:
        yield as_part(scripted)
    try:
        yield _traced(trace(model, use.passed), model, use)
    except Exception as error:
        rejected.append(_Rejected(telling_line(error)))
    try:
        flat = trace(model, use.passed, use.paths)
    except Exception as error:
        rejected.append(_Rejected(telling_line(error)))
    else:
        yield _traced(flat, model, use, _flat_results(expected.results))
        only_tensors = {path: _as_tuple(tree) for path, tree in expected.results.items()}
        yield _traced(flat, model, use, _flat_results(only_tensors))
    try:
        fixed = trace(model, use.passed, use.paths, fix_sizes=True)
    except Exception as error:
        rejected.append(_Rejected(telling_line(error)))
    else:
        yield _traced(fixed, model, use, _flat_results(expected.results))


def _variants(part: Part, expected: _Expected) -> Iterator[Part]:
    """Yield the part as it is, then called without gradients if the model disables all of them."""
    yield part
    if expected.gradients and not any(expected.gradients):
        form = replace(part.form, without_gradients=True)
        yield replace(part, form=form)


def _finished(part: Part, model: Model, rejected: list[_Rejected]) -> Part:
    """Return an accepted part, with a note on the losses if it is traced."""
    if not part.form.by_position:
        # The run may have changed numbers and lists of the scripted module.
        scripted = _script(model)
        assert isinstance(scripted, torch.jit.ScriptModule)
        return replace(part, script=scripted)
    return replace(part, note=f"{model.name} was traced: {rejected[0].reason}")


def _script(model: Model) -> torch.jit.ScriptModule | _Rejected:
    """Return the scripted model, or the reason for which it has to be traced."""
    if not model.switchable:
        return _Rejected("a torch.export archive cannot be scripted: its mode is fixed")
    try:
        with warnings.catch_warnings(action="ignore"):
            scripted = torch.jit.script(model.module)
    except Exception as error:
        message = telling_line(error)
        return _Rejected(f"it could not be scripted ({message}): {_ONE_PATH}")
    if not scripted._c._has_method("forward"):
        return _Rejected(f"its forward is overloaded and cannot be scripted: {_ONE_PATH}")
    function = _python_function(scripted)
    if function is not None:
        return _Rejected(f"TorchScript cannot save the autograd function {function}: {_ONE_PATH}")
    return scripted


def _python_function(scripted: torch.jit.ScriptModule) -> str | None:
    """Return the name of a Python function that the forward calls, None if there is none."""
    # The nodes live as long as the graph.
    graph = scripted.inlined_graph
    for node in graph.findAllNodes("prim::PythonOp"):
        return str(node.pyname())
    return None


def _traced(
    traced: Trace,
    model: Model,
    use: Use,
    flat: dict[KeyPath, FlatResult] | None = None,
) -> Part:
    """Return a trace as a part; its arguments have the names that they have in Python."""
    types = iter(script_arguments(traced.script))
    own_names = iter(model.arguments)
    fixed = use.passed.fixed
    positional = list[ArgumentFact]()
    named = list[ArgumentFact]()
    for number, argument in enumerate(use.passed.arguments):
        if number in fixed:
            type_name = _literal_type(fixed[number])
        else:
            type_name = next(types).type_name
        if argument.name:
            named.append(ArgumentFact(argument.name, type_name, required=True))
            continue
        own = next(own_names, None)
        name = f"input_{number}"
        if own is not None:
            name = own.name
        positional.append(ArgumentFact(name, type_name, required=True))
    form = PartForm(by_position=True, fixed=fixed, flat=flat or {})
    return Part(traced.script, (*positional, *named), form, functions=traced.functions)


def _literal_type(literal: Literal) -> str:
    """Return the type that TorchScript has for a plain value."""
    if literal.value is None:
        return "Optional[Tensor]"
    return type(literal.value).__name__


def _flat_results(results: dict[KeyPath, Tree]) -> dict[KeyPath, FlatResult]:
    """Return how to write each result with the tensors of all of them, in order."""
    flat = dict[KeyPath, FlatResult]()
    first = 0
    for path, tree in results.items():
        flat[path] = FlatResult(tree, first)
        first += len(list(leaves(tree)))
    return flat


def _as_tuple(tree: Tree) -> Tree:
    """Return a tuple of the tensors in a tree; a tensor stays as it is."""
    if isinstance(tree, TensorSpec):
        return tree
    return TreeSequence("tuple", tuple(spec for _, spec in leaves(tree)))


def _run_in_python(model: Model, use: Use) -> _Expected:
    """Return the result of the model, run with gradients if it can be."""
    gradients: list[bool] | None = None
    try:
        with torch.enable_grad():
            result = _call(model, use)
        gradients = _have_gradients(_tensors(result, use))
    except Exception:
        with torch.no_grad():
            result = _call(model, use)
    tree = tree_of(result)
    results = {path: get_path(tree, path) for path in use.paths}
    tensors = [tensor.detach() for tensor in _tensors(result, use)]
    return _Expected(results, tensors, gradients)


def _call(model: Model, use: Use) -> Any:
    """Run the model in Python on copies of the values."""
    values = use.copied_values()
    positional = list[Any]()
    named = dict[str, Any]()
    for argument, value in zip(use.passed.arguments, values, strict=True):
        if argument.name is None:
            positional.append(value)
        else:
            named[argument.name] = value
    with preserving_state([model], 0):
        return model.module(*positional, **named)


def _tensors(result: Any, use: Use) -> list[torch.Tensor]:
    """Return the tensors in the parts of a result that are used, in order."""
    tensors = list[torch.Tensor]()
    for path in use.paths:
        tensors += tensors_in(get_value(result, path))
    return tensors


def _have_gradients(tensors: list[torch.Tensor]) -> list[bool]:
    """Return which tensors get gradients."""
    return [tensor.requires_grad for tensor in tensors]


def _failure(part: Part, model: Model, use: Use, expected: _Expected) -> _Rejected | None:
    """Call the part from TorchScript as the joined forward will; return the fault, if any."""
    call = Call(use.passed.arguments)
    holder = new_holder()
    holder.add_module("part", part.script)
    try:
        signature = joined_signature(part.arguments, call)
        source = single_call_source(signature, part.form, expected.results)
        with warnings.catch_warnings(action="ignore"):
            calling = torch.jit.script(holder)
        calling.define(source)
    except Exception as error:
        message = telling_line(error)
        return _Rejected(f"as TorchScript it cannot be called ({message}): {_ONE_PATH}")
    enabled = expected.gradients is not None
    try:
        with torch.set_grad_enabled(enabled), preserving_state([model], 0):
            result = calling(*use.copied_values())
    except Exception as error:
        message = telling_line(error)
        return _Rejected(f"as TorchScript it does not run ({message}): {_ONE_PATH}")
    return _difference(tensors_in(result), expected)


def _difference(actual: list[torch.Tensor], expected: _Expected) -> _Rejected | None:
    """Return the difference between results in TorchScript and in Python; empty if none."""
    detached = [tensor.detach() for tensor in actual]
    same_count = len(actual) == len(expected.tensors)
    if not same_count or not all(map(allclose, expected.tensors, detached)):
        return _Rejected(f"as TorchScript it returns other values: {_ONE_PATH}")
    if expected.gradients not in (None, _have_gradients(actual)):
        return _Rejected(f"as TorchScript it has other gradients: {_ONE_PATH}")
    return None


def new_holder() -> nn.Module:
    """Return a module without anything, of a class of its own.

    TorchScript compiles one type for all modules of a class with the same attributes.
    """
    holder_class = type("Joined", (nn.Module,), {"__module__": "composecli"})
    holder: nn.Module = holder_class()
    return holder
