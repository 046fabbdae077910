"""Tracing a model into TorchScript, for those that cannot be scripted.

A trace takes tensors and returns tensors. Everything else in a call or in a result is taken out
by hooks of the module, so that the names of its parameters stay the same.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.utils import stateless
from torch.overrides import TorchFunctionMode

from composecli.core.pytree import Argument, Call, KeyPath, Literal
from composecli.runtime.forward.restore_state import preserving_state
from composecli.runtime.forward.run import get_value
from composecli.runtime.joining.trace_guards import Guarding
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values, tensors_in


@dataclass(frozen=True)
class Passed:
    """The arguments of a call with their values, in the order of the call."""

    arguments: tuple[Argument, ...]
    values: tuple[Any, ...]

    @property
    def fixed(self) -> dict[int, Literal]:
        """The plain values among them, by number: a trace makes them constant."""
        fixed = dict[int, Literal]()
        for number, argument in enumerate(self.arguments):
            if isinstance(argument.value, Literal):
                fixed[number] = argument.value
        return fixed

    @property
    def traced(self) -> tuple[Any, ...]:
        """The values that a trace takes, by position."""
        fixed = self.fixed
        return tuple(value for number, value in enumerate(self.values) if number not in fixed)


def passed(call: Call, values: Values) -> Passed:
    """Return the arguments of a call with the values that were made for them."""
    positional = iter(values.positional)
    in_order = list[Any]()
    for argument in call.arguments:
        if argument.name is None:
            in_order.append(next(positional))
        else:
            in_order.append(values.named[argument.name])
    return Passed(call.arguments, tuple(in_order))


@dataclass(frozen=True)
class Trace:
    """A traced module; `functions` are the autograd functions whose own backward it lacks."""

    script: torch.jit.ScriptModule
    functions: tuple[str, ...]


def trace(
    model: Model,
    inputs: Passed,
    used: tuple[KeyPath, ...] | None = None,
    *,
    fix_sizes: bool = False,
) -> Trace:
    """Return the trace of a model, which takes the tensors of the call by position.

    It returns the result of the model, or a tuple of all tensors in the `used` parts of it. Code
    that runs without gradients does so in the trace, too. `fix_sizes` gives the code numbers where
    it asks for sizes; whatever is fixed has a guard (`trace_guards`).

    Raises:
        Exception: whatever the forward raises, or torch.jit.trace.
    """
    with (
        warnings.catch_warnings(action="ignore"),
        preserving_state([model], 0),
        _hooked(model.module, inputs, used),
        _without_backward_hooks(model.module),
        _inlining_functions() as functions,
        _allowing_functional_calls(),
        _Detaching(),
        Guarding(fix_sizes=fix_sizes),
    ):
        # The forward may change its arguments.
        values = copy.deepcopy(inputs.traced)
        script = torch.jit.trace(model.module, values, strict=False, check_trace=False)
    return Trace(script, tuple(dict.fromkeys(functions)))


@contextmanager
def _hooked(module: nn.Module, inputs: Passed, used: tuple[KeyPath, ...] | None) -> Iterator[None]:
    """Give the module the arguments and the result of a trace, in the body."""
    before = _rebuild(inputs)
    handles = [module.register_forward_pre_hook(before, prepend=True, with_kwargs=True)]
    if used is not None:
        handles.append(module.register_forward_hook(_keep_tensors(used)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rebuild(inputs: Passed) -> Callable[..., Any]:
    """Return a hook that makes the call of the model from the values that a trace takes."""
    fixed = inputs.fixed

    def hook(_module: nn.Module, traced: tuple[Any, ...], _keywords: Any) -> Any:
        """Return the positional and the named arguments."""
        remaining = iter(traced)
        positional = list[Any]()
        named = dict[str, Any]()
        for number, argument in enumerate(inputs.arguments):
            if number in fixed:
                value = inputs.values[number]
            else:
                value = next(remaining)
            if argument.name is None:
                positional.append(value)
            else:
                named[argument.name] = value
        return tuple(positional), named

    return hook


def _keep_tensors(used: tuple[KeyPath, ...]) -> Callable[..., Any]:
    """Return a hook that returns the tensors in the used parts of a result, in order."""

    def hook(_module: nn.Module, _inputs: Any, result: Any) -> Any:
        tensors = list[Tensor]()
        for path in used:
            tensors += tensors_in(get_value(result, path))
        return tuple(tensors)

    return hook


class _Detaching(TorchFunctionMode):  # type: ignore[misc]
    """Detaches `x.data`, and results computed without gradients: a trace records neither."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.data.__get__:
            return args[0].detach()
        result = func(*args, **(kwargs or {}))
        if torch.is_grad_enabled():
            return result
        if isinstance(result, Tensor):
            return result.detach()
        if type(result) in (tuple, list) and all(isinstance(item, Tensor) for item in result):
            return type(result)(item.detach() for item in result)
        return result


@contextmanager
def _inlining_functions() -> Iterator[list[str]]:
    """Run the forward of autograd functions as ordinary code in the body; yield their names.

    TorchScript cannot save a call of Python. The gradients then follow from the ops of the forward,
    which need not agree with the function's own backward.
    """
    names = list[str]()

    def run_forward(cls: Any, *args: Any, **keywords: Any) -> Any:
        """Run the forward of one function, and note its name."""
        if cls.__module__ != "torch.utils.checkpoint":
            names.append(cls.__name__)
        return _run_forward(cls, *args, **keywords)

    function_class: Any = torch.autograd.Function
    own = function_class.__dict__["apply"]
    function_class.apply = classmethod(run_forward)
    try:
        yield names
    finally:
        function_class.apply = own


def _run_forward(cls: Any, *args: Any, **keywords: Any) -> Any:
    """Run the forward of an autograd function, with a context that keeps nothing."""
    if cls.__module__ == "torch.utils.checkpoint":
        # It runs a function, and runs it again for its gradients.
        run_function, _preserves_random_state, *values = args
        return run_function(*values)
    if cls.setup_context is not torch.autograd.Function.setup_context:
        return cls.forward(*args, **keywords)
    context = FunctionCtx()
    context.needs_input_grad = (True,) * len(args)
    return cls.forward(context, *args, **keywords)


@contextmanager
def _allowing_functional_calls() -> Iterator[None]:
    """Let the body use `torch.func.functional_call`, which torch refuses to trace."""
    own = stateless._functional_call
    stateless._functional_call = _functional_call
    try:
        yield
    finally:
        stateless._functional_call = own


def _functional_call(
    module: nn.Module, tensors: Any, args: Any = None, kwargs: Any = None, **options: Any
) -> Any:
    """Call a module with other tensors in the place of its own, as torch does."""
    positional = args
    if not isinstance(args, tuple):
        positional = tuple(value for value in (args,) if value is not None)
    with stateless._reparametrize_module(module, tensors, **options):
        return module(*positional, **(kwargs or {}))


@contextmanager
def _without_backward_hooks(module: nn.Module) -> Iterator[None]:
    """Take away backward hooks, which torch refuses to trace, while the body runs."""
    removed = list[tuple[nn.Module, str, Any]]()
    for inner in module.modules():
        if isinstance(inner, torch.jit.ScriptModule):
            continue
        for name in ("_backward_hooks", "_backward_pre_hooks"):
            hooks = getattr(inner, name)
            removed.append((inner, name, hooks))
            setattr(inner, name, OrderedDict())
    try:
        yield
    finally:
        for inner, name, hooks in removed:
            setattr(inner, name, hooks)
