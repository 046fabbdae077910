"""Arguments of ops that stand for members of an enum of C++: dtypes, layouts, memory formats.

In TorchScript, and in the schemas of ops, they are integers. PyTorch looks such an integer up in a
table without a look at how long that is, and calls what it finds there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch


@dataclass(frozen=True)
class Enum:
    """An enum by its name in schemas: its allowed members are the integers below `count`.

    None is allowed, too, where an argument `is_optional`.
    """

    name: str
    words: str
    count: int
    is_optional: bool = True

    def has(self, value: object) -> bool:
        """Return whether a value is allowed."""
        if value is None:
            return self.is_optional
        return type(value) is int and 0 <= value < self.count


@cache
def enums() -> Mapping[str, Enum]:
    """Return the enums of the installed PyTorch by name."""
    graph = torch._C.Graph()
    dtypes = {value for value in vars(torch).values() if isinstance(value, torch.dtype)}
    codes = [graph.insertConstant(dtype).toIValue() for dtype in dtypes]
    every = (
        Enum("ScalarType", "dtype", max(codes) + 1),
        # Strided. Ops trust that a tensor of another layout was made by one of their own.
        Enum("Layout", "strided layout", 1),
        Enum("MemoryFormat", "memory format", 4),
    )
    return {enum.name: enum for enum in every}


# With `copy`, this overload reads the dtype whether there is one or not.
READS_NO_DTYPE = "prim_dtype"


@cache
def has_enums(op: str) -> bool:
    """Return whether an overload of an op takes or returns a member of an enum."""
    schemas = torch._C._jit_get_schemas_for_operator(op)
    parts = [part for schema in schemas for part in (*schema.arguments, *schema.returns)]
    return any(enum_of(part) is not None for part in parts)


@cache
def enum_arguments(schema: str) -> tuple[tuple[int, Enum], ...]:
    """Return the numbers of the arguments of a schema, given as text, that have an enum."""
    arguments = torch._C.parse_schema(schema).arguments
    found = ((number, enum_of(argument)) for number, argument in enumerate(arguments))
    return tuple((number, enum) for number, enum in found if enum is not None)


@cache
def enum_of_result(schema: str) -> Enum | None:
    """Return the enum of the only result of a schema, given as text, as of `result_type`."""
    returns = torch._C.parse_schema(schema).returns
    if len(returns) != 1:
        return None
    return enum_of(returns[0])


def enum_of(part: Any) -> Enum | None:
    """Return the enum of an argument or a result; some schemas call a dtype an `int`."""
    kind = str(part.real_type).removeprefix("Optional[").removesuffix("]")
    if kind == "int" and "dtype" in part.name:
        kind = "ScalarType"
    return enums().get(kind)
