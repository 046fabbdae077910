"""The dtypes of PyTorch: the only table of their names, sizes and codes in this package.

Sources: `c10/core/ScalarType.h` of PyTorch 2.13 for names, sizes and the stems of storage classes,
and `torch/_export/serde/schema.py` for the codes of `ScalarType`. The table does not import torch;
`tests/unit/runtime/test_dtypes_of_torch.py` compares it with the installed one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of dtypes that differ in the operations on their values."""

    FLOAT = "float"
    # Eight bits: models store weights in them, and few ops compute with them.
    FLOAT8 = "float8"
    SIGNED = "signed integer"
    UNSIGNED = "unsigned integer"
    BOOL = "bool"
    COMPLEX = "complex"
    # Integers with a scale and a zero point that are attributes of the tensor.
    QUANTIZED = "quantized"
    # Below a byte, or uninterpreted: PyTorch can store these and hardly anything else.
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class DType:
    """One dtype.

    `size` is the item size in bytes, and `elements_per_item` is 1 unless several elements share an
    item. `storage` is the class that a pickle names for the storage of such a tensor: TorchScript
    uses it for every dtype, and `torch.save` for those that have a class of that name in torch. All
    others are saved as an `UntypedStorage` with the dtype next to it. `code` is the `ScalarType` of
    torch.export's schema, None if torch.export cannot save the dtype.
    """

    name: str
    kind: Kind
    size: int
    storage: str
    code: int | None = None
    elements_per_item: int = 1


# The most common first: error messages list the first few.
DTYPES = (
    DType("float32", Kind.FLOAT, 4, "FloatStorage", 7),
    DType("float64", Kind.FLOAT, 8, "DoubleStorage", 8),
    DType("float16", Kind.FLOAT, 2, "HalfStorage", 6),
    DType("bfloat16", Kind.FLOAT, 2, "BFloat16Storage", 13),
    DType("int64", Kind.SIGNED, 8, "LongStorage", 5),
    DType("int32", Kind.SIGNED, 4, "IntStorage", 4),
    DType("int16", Kind.SIGNED, 2, "ShortStorage", 3),
    DType("int8", Kind.SIGNED, 1, "CharStorage", 2),
    DType("uint8", Kind.UNSIGNED, 1, "ByteStorage", 1),
    DType("bool", Kind.BOOL, 1, "BoolStorage", 12),
    DType("complex64", Kind.COMPLEX, 8, "ComplexFloatStorage", 10),
    DType("complex128", Kind.COMPLEX, 16, "ComplexDoubleStorage", 11),
    DType("complex32", Kind.COMPLEX, 4, "ComplexHalfStorage", 9),
    DType("uint16", Kind.UNSIGNED, 2, "UInt16Storage", 28),
    DType("uint32", Kind.UNSIGNED, 4, "UInt32Storage", 34),
    DType("uint64", Kind.UNSIGNED, 8, "UInt64Storage", 35),
    DType("float8_e4m3fn", Kind.FLOAT8, 1, "Float8_e4m3fnStorage", 29),
    DType("float8_e5m2", Kind.FLOAT8, 1, "Float8_e5m2Storage", 30),
    DType("float8_e4m3fnuz", Kind.FLOAT8, 1, "Float8_e4m3fnuzStorage", 31),
    DType("float8_e5m2fnuz", Kind.FLOAT8, 1, "Float8_e5m2fnuzStorage", 32),
    DType("float8_e8m0fnu", Kind.FLOAT8, 1, "Float8_e8m0fnuStorage", 33),
    DType("qint8", Kind.QUANTIZED, 1, "QInt8Storage"),
    DType("quint8", Kind.QUANTIZED, 1, "QUInt8Storage"),
    DType("qint32", Kind.QUANTIZED, 4, "QInt32Storage"),
    DType("quint4x2", Kind.QUANTIZED, 1, "QUInt4x2Storage", elements_per_item=2),
    DType("quint2x4", Kind.QUANTIZED, 1, "QUInt2x4Storage", elements_per_item=4),
    # Two 4-bit floats; the sizes of such a tensor count pairs.
    DType("float4_e2m1fn_x2", Kind.RAW, 1, "Float4_e2m1fn_x2Storage"),
    DType("bits1x8", Kind.RAW, 1, "Bits1x8Storage"),
    DType("bits2x4", Kind.RAW, 1, "Bits2x4Storage"),
    DType("bits4x2", Kind.RAW, 1, "Bits4x2Storage"),
    DType("bits8", Kind.RAW, 1, "Bits8Storage"),
    DType("bits16", Kind.RAW, 2, "Bits16Storage"),
    *(DType(f"int{bits}", Kind.RAW, 1, f"Int{bits}Storage") for bits in range(1, 8)),
    *(DType(f"uint{bits}", Kind.RAW, 1, f"UInt{bits}Storage") for bits in range(1, 8)),
)

# The dtype of a port that accepts each of FLOATS and returns the dtype of its input.
ANY_FLOAT = "float"
# The floating dtypes that models compute in, smallest first.
FLOATS = ("float16", "bfloat16", "float32", "float64")

_BY_NAME = {dtype.name: dtype for dtype in DTYPES}
_BY_STORAGE = {dtype.storage: dtype for dtype in DTYPES}
_BY_CODE = {dtype.code: dtype for dtype in DTYPES if dtype.code is not None}


def by_name(name: str) -> DType | None:
    """Return the dtype that PyTorch prints as `torch.<name>`."""
    return _BY_NAME.get(name)


def by_storage(storage: str) -> DType | None:
    """Return the dtype whose storage class has this name; None for an `UntypedStorage`."""
    return _BY_STORAGE.get(storage)


def by_schema_code(code: int) -> DType | None:
    """Return the dtype with this `ScalarType` code in torch.export's schema."""
    return _BY_CODE.get(code)


def is_floating(name: str) -> bool:
    """Return whether this is a floating dtype with one number per element."""
    dtype = by_name(name)
    if dtype is None:
        return False
    return dtype.kind in (Kind.FLOAT, Kind.FLOAT8)


def is_complex(name: str) -> bool:
    """Return whether this is a complex dtype."""
    dtype = by_name(name)
    return dtype is not None and dtype.kind is Kind.COMPLEX


def is_numeric(name: str) -> bool:
    """Return whether PyTorch converts plain numbers to this dtype, so that samples can be drawn."""
    dtype = by_name(name)
    if dtype is None:
        return False
    return dtype.kind not in (Kind.QUANTIZED, Kind.RAW)


def is_integer(name: str) -> bool:
    """Return whether this is an integer dtype that ops compute with; bool is not one."""
    dtype = by_name(name)
    if dtype is None:
        return False
    return dtype.kind in (Kind.SIGNED, Kind.UNSIGNED)


def is_wider_integer(wide: str, narrow: str) -> bool:
    """Return whether the integer dtype `wide` has every value of the other dtype `narrow`.

    `narrow` is bool or an integer dtype: int16 has every value of uint8, and int8 does not.
    """
    one, other = by_name(wide), by_name(narrow)
    if one is None or other is None:
        return False
    if not is_integer(wide):
        return False
    if other.kind is Kind.BOOL:
        return True
    if not is_integer(narrow):
        return False
    if one.kind is Kind.UNSIGNED and other.kind is Kind.SIGNED:
        return False
    return one.size > other.size
