"""The scan of torch.export programs that needs PyTorch: no number where an op takes a dtype.

An export writes dtypes, layouts and memory formats under keys of their own. PyTorch looks these
up, so that it refuses others than it has. A plain number it hands to the op.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from composecli.files.archive import Archive
from composecli.files.pt2_layout import program_members
from composecli.files.safety.refusals import Reason, start_of
from composecli.runtime.enum_arguments import READS_NO_DTYPE, Enum, enum_of, has_enums
from composecli.runtime.pt2.schema import KEYWORD_ARGUMENT

_MEMBERS = frozenset(("as_none", "as_scalar_type", "as_layout", "as_memory_format"))
_OPS = "torch.ops."


def numbers_as_enums(archive: Archive, _allowed_ops: frozenset[str]) -> Iterator[Reason]:
    """Yield each op, once, that is given something else for a dtype than a program has for one."""
    reported = set[str]()
    for member in program_members(archive):
        for target, inputs in _calls(archive.json(member)):
            for enum in _misused(target, inputs):
                if target not in reported:
                    reported.add(target)
                    yield Reason(f"it calls {start_of(target)} with a number for a {enum.words}")


def _calls(program: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the ops that a program calls with their arguments, at any depth."""
    stack = [program]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            match value:
                case {"target": str(target), "inputs": list(inputs)} if target.startswith(_OPS):
                    yield target.removeprefix(_OPS), inputs
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def _misused(target: str, inputs: list[Any]) -> Iterator[Enum]:
    """Yield the enums of arguments that are none of their members."""
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    op = f"{namespace}::{name}"
    if not has_enums(op):
        return
    for schema in torch._C._jit_get_schemas_for_operator(op):
        if overload in ("", schema.overload_name or "default"):
            members = _MEMBERS
            if schema.overload_name == READS_NO_DTYPE:
                members -= {"as_none"}
            yield from _misused_by_schema(schema.arguments, inputs, members)


def _misused_by_schema(
    arguments: list[Any], inputs: list[Any], members: frozenset[str]
) -> Iterator[Enum]:
    by_name = {argument.name: argument for argument in arguments}
    place = 0
    for given in inputs:
        match given:
            case {"arg": dict(value)}:
                candidates = [by_name.get(given.get("name"))]
                if given.get("kind") != KEYWORD_ARGUMENT:
                    candidates += arguments[place : place + 1]
                    place += 1
                if not value.keys() <= members:
                    yield from _enums(candidates)


def _enums(candidates: list[Any]) -> Iterator[Enum]:
    for argument in candidates:
        if argument is not None:
            enum = enum_of(argument)
            if enum is not None:
                yield enum
