"""Other factories of the module that the user named, and whether the weights fit them.

Naming a module of Python is consent to run it. Nothing here runs any other.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from composecli.core.errors import Remedy
from composecli.core.key_causes import KeyDifferences
from composecli.core.model_ref import FactoryReference, parse_reference
from composecli.runtime.loading.changed_calls import changed_calls, changes_in
from composecli.runtime.loading.factory_call import make_module, other_classes
from composecli.runtime.loading.strict_keys import sizes_in, sizes_of
from composecli.runtime.loading.weights_file import has_fitting_entry, read_weights
from composecli.workers.protocol import OpenRequest


def fitting_first(request: OpenRequest, remedies: Iterable[Remedy]) -> tuple[Remedy, ...]:
    """Return remedies, with those first that name a factory which the weights fit."""
    return tuple(sorted(remedies, key=lambda remedy: not _fits(request, remedy)))


def fitting_classes(request: OpenRequest) -> tuple[Remedy, ...]:
    """Return the remedies that name another class of the same module which the weights fit.

    There are none if they fit the factory that was named: then its entry is what is not clear.
    """
    assert isinstance(request.reference, FactoryReference)
    if _fits(request, Remedy(model=request.reference.name)):
        return ()
    remedies = other_classes(request.reference)
    return tuple(remedy for remedy in remedies if _fits(request, remedy))


def fitting_calls(request: OpenRequest) -> tuple[Remedy, ...]:
    """Return the remedies that call the factory with other numbers, so that the weights fit."""
    named = request.reference
    assert isinstance(named, FactoryReference)
    try:
        with torch.device("meta"):
            module = make_module(named)
        own = sizes_of(module)
        weights = read_weights(request, own, sizes_only=True)
    except Exception:
        return ()
    changes = changes_in(KeyDifferences(own, sizes_in(weights.state)))
    for call in changed_calls(named, changes):
        remedy = Remedy(model=call.name, effect="its weights fit this call")
        if _fits(request, remedy):
            return (remedy,)
    return ()


def _fits(request: OpenRequest, remedy: Remedy) -> bool:
    """Return whether the weights fit the factory of a remedy, if that is of the named module."""
    named = request.reference
    other = parse_reference(remedy.model)
    assert isinstance(named, FactoryReference)
    if not isinstance(other, FactoryReference) or other.module != named.module:
        return False
    try:
        # On meta, even a large module takes neither time nor memory.
        with torch.device("meta"):
            module = make_module(other)
        return has_fitting_entry(request, sizes_of(module))
    except Exception:
        # It is a suggestion: a class that cannot be made here comes behind the others.
        return False
