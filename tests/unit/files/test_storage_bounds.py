"""Tensors and storages that do not fit their records are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.files.archive import Archive
from composecli.files.pickle import Constructed, Global, ParsedPickle, Persistent
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes
from tests.unit.files.archives import write_archive


def problems(
    storage: str,
    items: int,
    *geometry: object,
    size: int | None = 24,
    rest: tuple[object, ...] = (),
) -> list[str]:
    reference = Persistent(("storage", Global("torch", storage), "0", "cpu", items))
    function = Global("torch._utils", "_rebuild_tensor_v3")
    tensor = Constructed(function, (reference, *geometry, *rest))
    parsed = ParsedPickle(tensor, (function,), (tensor,), (reference,))
    return list(find_out_of_bounds(parsed, lambda _: size))


@pytest.mark.parametrize(
    ("offset", "sizes", "strides", "fits"),
    [
        (0, (6,), (1,), True),
        (0, (2, 3), (3, 1), True),
        (1, (2, 2), (3, 1), True),
        (1, (6,), (1,), False),
        (0, (7,), (1,), False),
        (0, (2,), (6,), False),
        (0, (100, 6), (0, 1), True),
        (99, (0, 5), (1, 1), True),
        (0, (), (), True),
    ],
)
def test_a_tensor_must_end_inside_of_its_storage(
    offset: int, sizes: tuple[int, ...], strides: tuple[int, ...], fits: bool
) -> None:
    assert (problems("FloatStorage", 6, offset, sizes, strides) == []) is fits


@pytest.mark.parametrize(
    ("offset", "sizes", "strides"),
    [(-1, (2,), (1,)), (0, (-2,), (1,)), (0, (2,), (-1,)), (0, (True,), (1,)), (0, (2, 2), (1,))],
)
def test_numbers_that_are_not_sizes_make_no_sense(
    offset: int, sizes: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    (message,) = problems("FloatStorage", 6, offset, sizes, strides)
    assert "has invalid sizes" in message


def test_a_record_must_be_as_long_as_its_storage() -> None:
    fine = (0, (6,), (1,))
    assert problems("FloatStorage", 6, *fine, size=24) == []
    (message,) = problems("FloatStorage", 6, *fine, size=20)
    assert message == "the record of storage 0 has 20 bytes, and its tensors need 24"
    (message,) = problems("FloatStorage", 6, *fine, size=None)
    assert message == "the record of storage 0 is missing"
    assert problems("DoubleStorage", 3, 0, (3,), (1,), size=24) == []


def test_an_untyped_storage_is_counted_in_items_of_the_tensor() -> None:
    uint16 = (False, None, Global("torch", "uint16"))
    assert problems("UntypedStorage", 24, 0, (12,), (1,), rest=uint16) == []
    (message,) = problems("UntypedStorage", 24, 0, (13,), (1,), rest=uint16)
    assert message == "a tensor in storage 0 reaches to element 12 of 12"


def test_another_argument_does_not_pass_for_the_dtype() -> None:
    hidden = (Global("torch", "uint8"), None, Global("torch", "float64"))
    (message,) = problems("UntypedStorage", 24, 0, (24,), (1,), rest=hidden)
    assert "reaches to element 23 of 3" in message


def test_packed_elements_share_an_item() -> None:
    assert problems("QUInt4x2Storage", 24, 0, (48,), (1,)) == []
    assert problems("QUInt4x2Storage", 24, 0, (49,), (1,))
    assert problems("QUInt2x4Storage", 24, 0, (96,), (1,)) == []


def test_other_references_and_tensors_of_nothing_are_reported() -> None:
    reference = Persistent(("module", Global("torch", "FloatStorage"), "0", "cpu", 6))
    tensor = Constructed(Global("torch._utils", "_rebuild_tensor_v2"), (3, 0, (1,), (1,)))
    parsed = ParsedPickle(tensor, (), (tensor,), (reference,))
    assert list(find_out_of_bounds(parsed, lambda _: 24)) == [
        "a reference to something that is not a storage",
        "a tensor that is not built from a storage",
    ]


def test_record_sizes_are_those_of_the_folder(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "model.pt", {"data/0": bytes(24), "constants/1": bytes(8)})
    with Archive(path) as archive:
        size_of = record_sizes(archive, "data/")
        assert (size_of("0"), size_of("1")) == (24, None)
