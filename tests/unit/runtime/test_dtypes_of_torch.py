"""The table of dtypes compared with torch, and a file with each dtype read by each reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch._export.serde.schema import ScalarType
from torch._export.serde.serialize import _TORCH_TO_SERIALIZE_DTYPE
from torch.storage import _dtype_to_storage_type_map

from composecli.core.dtypes import DTYPES, DType, Kind, by_name, is_floating, is_numeric
from composecli.core.input_spec import parse_input
from composecli.core.pytree import Argument, Call, TensorSpec, TreeMapping
from composecli.files.archive import Archive
from composecli.files.pickle import Global
from composecli.files.pickle_tree import tree_of
from composecli.files.sniff import ModelFile, WeightsFile, sniff
from composecli.files.storage_bounds import find_out_of_bounds, record_sizes
from composecli.runtime.loading import load, with_values
from composecli.runtime.tensors import Maker, dtype_of
from tests.unit.runtime.opening import open_request

# Torch warns at the first quantized tensor of a process, and when it reads one.
pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]

QUANTIZED = [dtype for dtype in DTYPES if dtype.kind is Kind.QUANTIZED]
EXPORTED = [dtype for dtype in DTYPES if dtype.code is not None]
# `torch.save` has no name for integers below a byte; TorchScript has.
SUB_BYTE = [dtype for dtype in DTYPES if dtype.name.lstrip("uint") in "1234567"]
SAVED = [dtype for dtype in DTYPES if dtype not in SUB_BYTE]
# Its own reader refuses files with these, as their records are shorter than it computes.
SCRIPTED = [dtype for dtype in DTYPES if dtype.elements_per_item == 1]


def name_of(dtype: DType) -> str:
    return dtype.name


def tensor_of(dtype: DType) -> torch.Tensor:
    """A tensor with 8 elements, whose bytes are all zero unless it is quantized."""
    of_torch = dtype_of(dtype.name)
    if dtype.kind is Kind.QUANTIZED:
        return torch._empty_affine_quantized([8], scale=1.0, zero_point=0, dtype=of_torch)
    return torch.zeros(8 * dtype.size, dtype=torch.uint8).view(of_torch)


class Holder(nn.Module):
    """Has a buffer, and returns it next to its input."""

    def __init__(self, tensor: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("held", tensor)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, self.held


def test_the_table_has_the_dtypes_of_torch() -> None:
    of_torch = {str(value) for value in vars(torch).values() if isinstance(value, torch.dtype)}
    assert of_torch == {f"torch.{dtype.name}" for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
def test_sizes_and_kinds_are_those_of_torch(dtype: DType) -> None:
    of_torch = dtype_of(dtype.name)
    assert dtype.size == of_torch.itemsize
    assert (dtype.kind is Kind.COMPLEX) == of_torch.is_complex
    if dtype.name != "float4_e2m1fn_x2":
        assert is_floating(dtype.name) == of_torch.is_floating_point
    if dtype.kind in (Kind.SIGNED, Kind.UNSIGNED):
        assert torch.iinfo(of_torch).bits == dtype.size * 8
        assert (torch.iinfo(of_torch).min < 0) == (dtype.kind is Kind.SIGNED)


def test_storage_classes_are_those_of_torch() -> None:
    for of_torch, storage in _dtype_to_storage_type_map().items():
        dtype = by_name(str(of_torch).removeprefix("torch."))
        assert dtype is not None
        assert dtype.storage == storage


def test_schema_codes_are_those_of_torch() -> None:
    of_torch = {str(key): int(code) for key, code in _TORCH_TO_SERIALIZE_DTYPE.items()}
    assert of_torch == {f"torch.{dtype.name}": dtype.code for dtype in EXPORTED}
    assert {int(code) for code in ScalarType if code} == {dtype.code for dtype in EXPORTED}


@pytest.mark.parametrize("dtype", SAVED, ids=name_of)
def test_a_checkpoint_with_each_dtype_is_read(tmp_path: Path, dtype: DType) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"held": tensor_of(dtype)}, path)
    found = sniff(str(path))
    assert isinstance(found, WeightsFile)
    with Archive(path) as archive:
        tree = tree_of(archive.pickle("data.pkl").value)
    assert tree == TreeMapping((("held", TensorSpec(dtype.name, tuple(tensor_of(dtype).shape))),))


@pytest.mark.parametrize("dtype", SAVED, ids=name_of)
def test_a_pickled_module_with_each_dtype_is_read(tmp_path: Path, dtype: DType) -> None:
    path = tmp_path / "model.pt"
    module = nn.Identity()
    module.register_buffer("held", tensor_of(dtype))
    torch.save(module, path)
    model = with_values(load(open_request(path, "pickled")))
    assert model.module.held.dtype is dtype_of(dtype.name)
    assert bytes(model.module.held.untyped_storage()) == bytes(module.held.untyped_storage())


@pytest.mark.parametrize("dtype", SUB_BYTE, ids=name_of)
def test_torch_cannot_save_integers_below_a_byte(tmp_path: Path, dtype: DType) -> None:
    with pytest.raises(KeyError, match="not recognized"):
        torch.save(tensor_of(dtype), tmp_path / "weights.pt")


@pytest.mark.parametrize("dtype", SCRIPTED, ids=name_of)
def test_a_script_with_each_dtype_is_read(tmp_path: Path, dtype: DType) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.script(Holder(tensor_of(dtype))), path)
    found = sniff(str(path))
    assert isinstance(found, ModelFile)
    with Archive(path) as archive:
        storages = [reference.key for reference in archive.pickle("data.pkl").references]
    (key,) = storages
    assert isinstance(key, tuple)
    assert key[1] == Global("torch", dtype.storage)
    model = with_values(load(open_request(path, "scripted")))
    assert model.module.held.dtype is dtype_of(dtype.name)


@pytest.mark.parametrize("dtype", EXPORTED, ids=name_of)
def test_an_exported_program_with_each_dtype_is_read_by_both_readers(
    tmp_path: Path, dtype: DType
) -> None:
    path = tmp_path / "model.pt2"
    held = tensor_of(dtype)
    torch.export.save(torch.export.export(Holder(held), (held.clone(),)), path)
    found = sniff(str(path))
    assert isinstance(found, ModelFile)
    assert found.exported is not None
    assert [port.dtype for port in found.exported.outputs] == [dtype.name, dtype.name]
    lazy = load(open_request(path, "exported"))
    assert not any("all its tensors were read" in note for note in lazy.notes)
    _, result = with_values(lazy).module(held)
    assert result.dtype is held.dtype
    assert bytes(result.untyped_storage()) == bytes(held.untyped_storage())


@pytest.mark.parametrize("dtype", [d for d in DTYPES if is_numeric(d.name)], ids=name_of)
def test_an_input_of_each_numeric_dtype_can_be_drawn(dtype: DType) -> None:
    assert parse_input(f"{dtype.name}[2,3]").dtype == dtype.name  # type: ignore[union-attr]
    call = Call((Argument(TensorSpec(dtype.name, (2, 3))),))
    (value,) = Maker("cpu", 0, []).call(call).positional
    assert value.dtype is dtype_of(dtype.name)


@pytest.mark.parametrize("dtype", QUANTIZED, ids=name_of)
def test_a_record_that_is_too_short_for_a_packed_tensor_is_found(
    tmp_path: Path, dtype: DType
) -> None:
    path = tmp_path / "weights.pt"
    torch.save(tensor_of(dtype), path)
    with Archive(path) as archive:
        parsed = archive.pickle("data.pkl")
        sizes = record_sizes(archive, "data/")
        assert not list(find_out_of_bounds(parsed, sizes))
    (tensor,) = (made for made in parsed.constructed if "qtensor" in str(made.function))
    assert isinstance(tensor.arguments, tuple)
    storage, offset, *rest = tensor.arguments
    tensor.arguments = (storage, offset + 1, *rest)
    assert list(find_out_of_bounds(parsed, sizes))
