"""The example inputs of a torch.export archive: a checkpoint that may hold nothing but data.

An export marks the sizes that may change by attributes of the example tensors. Such a tensor is
rebuilt with its attributes, in one form only:

    _rebuild_from_type_v2(_rebuild_tensor_v2, Tensor, (storage, ...), {"_specialize_on": {0: []}})
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from composecli.files.archive import Archive, NotAnArchive
from composecli.files.checkpoint import is_inert, is_plain_part
from composecli.files.pickle import (
    Constructed,
    Global,
    NotAPickle,
    ParsedPickle,
    PickleDict,
)
from composecli.files.pt2_layout import is_sample_inputs
from composecli.files.safety.pt2_structure import is_unquoted
from composecli.files.safety.refusals import Reason, start_of
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes

_MARKED = Global("torch._tensor", "_rebuild_from_type_v2")
_TENSOR = Global("torch", "Tensor")
_PLAIN = Global("torch._utils", "_rebuild_tensor_v2")
# Attributes of tensors that `mark_dynamic` of torch._dynamo sets: by axis, a list or a number.
_MARKS = frozenset(("_specialize_on", "_dynamo_hint_overrides"))


def unsafe_samples(archive: Archive, name: str) -> Iterator[Reason]:
    """Yield why not to load example inputs, which PyTorch unpickles without restrictions."""
    if not is_sample_inputs(name):
        yield Reason(f"{name} is a pickle")
        return
    data = archive.read(name)
    # `torch.export.save` writes an empty member if there are no example inputs.
    if not data:
        return
    try:
        with Archive.of_bytes(data) as inner:
            parsed = without_marks(inner.pickle("data.pkl"))
            decoded = inner.operations("data.pkl")
            problems = tuple(find_out_of_bounds(parsed, record_sizes(inner, "data/")))
    except (NotAPickle, NotAnArchive) as error:
        yield Reason(f"{name}: {error}")
        return
    foreign = [imported for imported in parsed.imports if not is_inert(imported)]
    for imported in foreign:
        yield Reason(f"{name} would import {imported}")
    for problem in problems:
        yield Reason(f"{name}: {problem}")
    if not foreign and not is_plain_part(parsed):
        yield Reason(f"{name} is more than tensors, numbers and texts")
    for operation in decoded:
        text = operation.argument
        # PyTorch writes the keys of dicts into the source of guards.
        if isinstance(text, str) and not is_unquoted(text.replace("\n", " ")):
            yield Reason(f"{name} has the text {start_of(text)}")


def without_marks(parsed: ParsedPickle) -> ParsedPickle:
    """Return a pickle with plain tensors in place of those that only have marks of an export."""
    constructed = tuple(_plain_tensor(made) or made for made in parsed.constructed)
    called = {made.function for made in constructed if isinstance(made.function, Global)}
    needless = {_MARKED, _TENSOR} - called
    imports = tuple(name for name in parsed.imports if name not in needless)
    return replace(parsed, imports=imports, constructed=constructed)


def _plain_tensor(made: Constructed) -> Constructed | None:
    """Return the tensor that is rebuilt with marks; None if anything else is made."""
    if made.function != _MARKED or made.is_new or made.state is not None or made.items:
        return None
    match made.arguments:
        case (function, kind, tuple(arguments), PickleDict() as marks):
            if function == _PLAIN and kind == _TENSOR and _are_marks(marks):
                return Constructed(function, arguments)
    return None


def _are_marks(marks: PickleDict) -> bool:
    """Return whether the attributes of a tensor are marks, with plain values."""
    for name, by_axis in marks.items:
        # A key of a pickle may be a list, which no set can be asked for.
        if not isinstance(name, str) or name not in _MARKS:
            return False
        if not isinstance(by_axis, PickleDict):
            return False
        for axis, value in by_axis.items:
            if type(axis) is not int or not (value == [] or type(value) is int):
                return False
    return True
