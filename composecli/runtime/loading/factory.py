"""Factories and their weights.

Naming a factory is consent to run it. Its weights are read as data, unless their file is trusted.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.model_ref import FactoryReference
from composecli.core.rules import Rule
from composecli.runtime.loading.factory_call import failures_of_own_code, make_module
from composecli.runtime.loading.fitting_factories import (
    fitting_calls,
    fitting_classes,
    fitting_first,
)
from composecli.runtime.loading.lazy_layers import finish_lazy_layers
from composecli.runtime.loading.stored_state import take_over
from composecli.runtime.loading.strict_keys import (
    dtype_notes,
    fit_by_name,
    load_strictly,
    sizes_of,
    with_tied_names,
)
from composecli.runtime.loading.weights_file import (
    other_calls,
    pickled_module,
    read_weights,
    trust_alone,
)
from composecli.runtime.model import Model, eager_arguments, set_training
from composecli.runtime.weights.lazy_weights import FactoryWeights
from composecli.workers.protocol import OpenRequest

MAX_NAMES_SHOWN = 8
AS_MADE = "no weights file was named: its weights are as the factory made them"


class FactoryLoader:
    """Loads a module that a factory makes, with the weights of a file."""

    def load(self, request: OpenRequest) -> Model:
        """Return the module with its initial weights, checked against the sizes in the file.

        The values of the file are read on demand.

        Raises:
            CouldNotAttempt: if the factory fails, or the file is not admitted or has other keys.
        """
        lazy = request.device == "cpu" and request.sha256 is None
        return _load(request, lazy=lazy)

    def load_whole(self, request: OpenRequest) -> Model:
        """Return the module with the weights of the file.

        Raises:
            CouldNotAttempt: if the factory fails, or the file is not admitted or has other keys.
        """
        return _load(request, lazy=False)


class FactoryAloneLoader:
    """Loads a module that a factory makes, with the values that the factory gives it."""

    def load(self, request: OpenRequest) -> Model:
        """Return the module, whose initial values are the same each time.

        Raises:
            CouldNotAttempt: if the factory fails.
        """
        reference = request.reference
        assert isinstance(reference, FactoryReference)
        module = make_module(reference)
        _refuse_without_values(module, set(), reference)
        with failures_of_own_code(reference):
            module.to(request.device)
            set_training(module, request.training)
        return Model(module, request, eager_arguments(module), {}, (AS_MADE,))

    load_whole = load


LOADER = FactoryLoader()
LOADER_ALONE = FactoryAloneLoader()


def _load(request: OpenRequest, *, lazy: bool) -> Model:
    """Return the module of a factory. If its weights do not fit, another class may be suggested.

    Raises:
        CouldNotAttempt: if the factory fails, or the file is not admitted or has other keys.
    """
    reference = request.reference
    assert isinstance(reference, FactoryReference)
    try:
        with failures_of_own_code(reference):
            return _load_named(request, reference, lazy=lazy)
    except CouldNotAttempt as failure:
        problem = failure.problem
        if problem.rule is Rule.KEYS_DO_NOT_FIT:
            fitting = fitting_classes(request) or fitting_calls(request)
            help = problem.help
            if fitting:
                help = ()
            remedies = (*fitting, *problem.remedies)
            failure.problem = replace(problem, help=help, remedies=remedies)
        raise


def _load_named(request: OpenRequest, reference: FactoryReference, *, lazy: bool) -> Model:
    """Return the module of a factory; if `lazy`, only the sizes in the file are read now."""
    module = _make_module(request, reference)
    sizes = sizes_of(module)
    _refuse_without_values(module, set(sizes), reference)
    _materialize(module)

    def load_values() -> None:
        """Copy the values of the file into the module."""
        values = read_weights(request, sizes, sizes_only=False)
        load_strictly(module, with_tied_names(module, values), reference)

    weights = with_tied_names(module, read_weights(request, sizes, sizes_only=lazy))
    notes = (*weights.notes, *dtype_notes(module, weights.state))
    take_over(module, weights)
    lazy_weights = None
    if not lazy:
        load_strictly(module, weights, reference)
    elif fit_by_name(module, weights.state):
        lazy_weights = FactoryWeights(module, load_values)
    else:
        load_values()
    if lazy_weights is None:
        finish_lazy_layers(module)
    module.to(request.device)
    set_training(module, request.training)
    return Model(module, request, eager_arguments(module), {}, notes, lazy_weights)


def _make_module(request: OpenRequest, reference: FactoryReference) -> nn.Module:
    """Return the module of a factory. If it fails, its pickled module may suggest another.

    Raises:
        CouldNotAttempt: if the factory fails.
    """
    try:
        return make_module(reference)
    except CouldNotAttempt as failure:
        remedies = fitting_first(request, failure.problem.remedies)
        failure.problem = replace(failure.problem, remedies=remedies)
        file = pickled_module(request)
        # Unpickling needs the code of the class: an error of its import comes first.
        if file is not None and not isinstance(failure.__cause__, ImportError | FileNotFoundError):
            remedies = (*failure.problem.remedies, trust_alone(request))
            # A call that does not fit may be known: a module often has the arguments as attributes.
            if isinstance(failure.__cause__, TypeError):
                remedies = (*other_calls(request, file), *remedies)
            failure.problem = replace(failure.problem, remedies=remedies)
        raise


def _refuse_without_values(module: nn.Module, names: set[str], reference: FactoryReference) -> None:
    """Refuse a module with tensors on meta that are not in its state dict, given by its `names`.

    Raises:
        CouldNotAttempt: if there are any: nothing gives them values.
    """
    named = (*module.named_parameters(), *module.named_buffers())
    empty = [name for name, tensor in named if tensor.is_meta and name not in names]
    if empty:
        title = "the factory makes tensors on meta that are not in the state dict"
        notes = tuple(f"without values: {name}" for name in empty[:MAX_NAMES_SHOWN])
        help = "make them on the CPU: tensors on meta have no values"
        problem = Problem(Rule.FACTORY_FAILED, title, reference.name, notes, (help,))
        raise CouldNotAttempt(problem)


def _materialize(module: nn.Module) -> None:
    """Replace tensors on meta by zeros on the CPU; shared ones by one tensor."""
    zeros = dict[int, torch.Tensor]()
    for inner in module.modules():
        for held in (inner._parameters, inner._buffers):
            for name, tensor in held.items():
                if tensor is None or not tensor.is_meta:
                    continue
                if id(tensor) not in zeros:
                    zeros[id(tensor)] = _zeros_like(tensor)
                held[name] = zeros[id(tensor)]


def _zeros_like(tensor: torch.Tensor) -> torch.Tensor:
    """Return zeros on the CPU, as a parameter if the tensor is one."""
    zeros = torch.zeros_like(tensor, device="cpu", requires_grad=False)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(zeros, requires_grad=tensor.requires_grad)
    return zeros
