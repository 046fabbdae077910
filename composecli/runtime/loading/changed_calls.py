"""Calls of a factory with other numbers, which may make a module that the weights fit.

A file of 7 classes does not fit `Net(classes=10)`, and fits `Net(classes=7)`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from inspect import BoundArguments, Parameter

from composecli.core.errors import CouldNotAttempt
from composecli.core.key_causes import KeyDifferences, find_causes
from composecli.core.model_ref import FactoryReference, literal_arguments
from composecli.runtime.loading.factory_call import signature_of

MAX_CHANGES = 6

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)

# A number of the module, and the one that the file has in its place.
Change = tuple[int, int]


def changes_in(keys: KeyDifferences) -> tuple[Change, ...]:
    """Return the numbers that differ between the module and the file, the likeliest first."""
    changes = dict.fromkeys(cause.change for cause in find_causes(keys))
    return tuple(change for change in changes if change is not None)[:MAX_CHANGES]


def changed_calls(
    reference: FactoryReference, changes: tuple[Change, ...]
) -> Iterator[FactoryReference]:
    """Yield calls of the factory with arguments changed: all at once, then one at a time.

    Only integers are changed: those that the call gives, and defaults.
    """
    bound = _bound(reference)
    if bound is None:
        return
    single = list[dict[str, int]]()
    for own, stored in changes:
        for name, value in bound.arguments.items():
            is_named = bound.signature.parameters[name].kind in _BY_NAME
            if is_named and type(value) is int and value == own:
                single.append({name: stored})
    together: dict[str, int] = {}
    for changed in single:
        for name, value in changed.items():
            together.setdefault(name, value)
    if len(single) > 1:
        yield _call(reference, bound, together)
    for changed in single:
        yield _call(reference, bound, changed)


def _bound(reference: FactoryReference) -> BoundArguments | None:
    """Return the arguments of a call with its defaults; None if they are not known."""
    signature = signature_of(reference)
    if signature is None:
        return None
    try:
        positional, named = literal_arguments(reference.arguments)
        bound = signature.bind(*positional, **named)
    except (TypeError, ValueError, CouldNotAttempt):
        return None
    bound.apply_defaults()
    return bound


def _call(
    reference: FactoryReference, bound: BoundArguments, changed: Mapping[str, int]
) -> FactoryReference:
    """Return the call with some arguments changed, and the others as they were given."""
    positional, named = literal_arguments(reference.arguments)
    names = list(bound.signature.parameters)
    values = list(positional)
    others = dict(named)
    for name, value in changed.items():
        place = names.index(name)
        if place < len(values):
            values[place] = value
        else:
            others[name] = value
    texts = [*map(repr, values), *(f"{name}={value!r}" for name, value in others.items())]
    return replace(reference, arguments=f"({', '.join(texts)})")
