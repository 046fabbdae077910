"""JSON objects of a program's graph: its ops, their arguments, and the inputs and outputs.

Source: `torch/_export/serde/schema.py`, major version 8. A union is an object with a single key,
the kind of the value. As in `files/pt2_layout.py`, which has the types of the surrounding objects,
nothing has checked the JSON of a file against these types.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

KEYWORD_ARGUMENT = 2
STRIDED_LAYOUT = 7


class ComplexValue(TypedDict):
    """A complex number."""

    real: float
    imag: float


class TensorArgument(TypedDict):
    """A tensor by its name in the graph."""

    name: str


class Reference(TypedDict, total=False):
    """A value by its name, or a number in place of one.

    In the schema: TensorArgument, OptionalTensorArgument, SymIntArgument, SymFloatArgument or
    SymBoolArgument.
    """

    name: str
    as_tensor: TensorArgument
    as_none: bool
    as_name: str
    as_int: int
    as_float: float
    as_bool: bool


class Argument(TypedDict, total=False):
    """A union: an argument of an op, or one of its results. The other kinds are literals."""

    as_tensor: TensorArgument
    as_tensors: list[TensorArgument]
    as_optional_tensor: Reference
    as_optional_tensors: list[Reference]
    as_sym_int: Reference
    as_sym_ints: list[Reference]
    as_scalar_type: int
    as_memory_format: int
    as_layout: int
    as_complex: ComplexValue


class NamedArgument(TypedDict):
    """An argument of an op, with its name in the op's schema. Older programs have no kind."""

    name: str
    arg: Argument
    kind: NotRequired[int | None]


class Node(TypedDict):
    """One op. `target` is its name, such as `torch.ops.aten.linear.default`."""

    target: str
    inputs: list[NamedArgument]
    outputs: list[Argument]


class UserArgument(TypedDict):
    """An input that the caller passes, or an output that the caller gets."""

    arg: Argument


class ConstantInput(TypedDict):
    """An input whose value is fixed."""

    name: str


class StoredTensor(TypedDict, total=False):
    """A parameter, buffer or constant; the one name that it has is its path in the model."""

    arg: TensorArgument
    parameter_name: str
    buffer_name: str
    tensor_constant_name: str


class InputSpec(TypedDict, total=False):
    """A union: one input of the graph."""

    user_input: UserArgument
    constant_input: ConstantInput
    parameter: StoredTensor
    buffer: StoredTensor
    tensor_constant: StoredTensor


class BufferMutation(TypedDict):
    """A value that is copied into a buffer at the end."""

    arg: TensorArgument
    buffer_name: str


class UserInputMutation(TypedDict):
    """A value that is copied into an input at the end."""

    arg: TensorArgument
    user_input_name: str


class OutputSpec(TypedDict, total=False):
    """A union: one output of the graph."""

    user_output: UserArgument
    buffer_mutation: BufferMutation
    user_input_mutation: UserInputMutation
