"""Models with lazy weights: the same answers as with all weights, and no read without need."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from composecli.commands.check import check
from composecli.commands.inspect import inspect
from composecli.commands.join import join
from composecli.commands.requests import CheckRequest, InspectRequest, JoinRequest, Options
from composecli.commands.trust import Trust
from composecli.core.blueprint import Mode, single_model
from composecli.core.errors import CouldNotAttempt
from composecli.core.model_ref import FactoryReference, FileReference, ModelKind
from composecli.core.observations import Accepted, Detail, Observation, Rejected
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.files.pickle import operations
from composecli.files.skeleton import rewrite_device
from composecli.runtime.describe import collect_facts
from composecli.runtime.in_process import InProcessWorker
from composecli.runtime.loading import load, load_whole
from composecli.runtime.model import Model
from composecli.workers.protocol import OpenRequest, ProbeRequest, Training
from tests.models import (
    Argmax,
    Baked,
    Biased,
    Counter,
    Deep,
    DictOutput,
    Ids,
    NanCheck,
    Shelf,
    Tied,
    encoder,
    rewrite,
)

FORMS = {
    "scripted": ModelKind.TORCHSCRIPT,
    "traced": ModelKind.TORCHSCRIPT,
    "pickled": ModelKind.PICKLED,
}


class Indexed(nn.Module):
    """Selects columns of its input with a table in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.tensor([5, 0]))
        self.register_buffer("scale", torch.ones(2))
        self.fc = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x[:, self.table] * self.scale)


class Routed(nn.Module):
    """Returns as many rows as its weights select."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(4, 1)
        nn.init.ones_(self.gate.bias)
        nn.init.zeros_(self.gate.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[self.gate(x)[:, 0] > 0.5]


class Listed(nn.Module):
    """Python code that reads the memory of a result without an op."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 1)
        nn.init.ones_(self.fc.bias)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fc(x).sum(0).tolist() == [0.0]:
            raise ValueError("nothing there")
        return x


class Decaying(nn.Module):
    """Writes to its own parameter on each call."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.fc.weight.mul_(0.5)
        return self.fc(x)


MODELS = {
    "encoder": (encoder(), ["float32[2,3,16,16]", "float32[1,3,8,8]", "float32[2,4,16,16]"]),
    "deep": (Deep(), ["float32[2,10]", "float32[2,11]"]),
    "biased": (Biased(), ["float32[2,10]", "float32[2,9]"]),
    "counter": (Counter(), ["float32[2,10]", "float32[3,3]"]),
    "tied": (Tied(), ["float32[2,8]", "float32[2,10]"]),
    "nan": (NanCheck(), ["float32[2,10]", "float32[2,4]"]),
    "argmax": (Argmax(), ["float32[2,10]", "float32[10]"]),
    "baked": (Baked(), ["float32[2,10]"]),
    "dict": (DictOutput(), ["float32[2,10]", "float32[2,3]"]),
    "ids": (Ids(), ["int64[2,8]", "float32[2,8]"]),
    "norm": (nn.BatchNorm2d(8).train(), ["float32[2,8,4,4]", "float32[1,8,1,1]"]),
    "layer norm": (
        nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)),
        ["float32[2,5,6]", "float32[2,5,7]"],
    ),
    "indexed": (Indexed(), ["float32[2,6]", "float32[2,5]"]),
    "routed": (Routed(), ["float32[2,4]", "float32[2,5]"]),
}


def spec(text: str) -> TensorSpec:
    dtype, _, sizes = text.partition("[")
    return TensorSpec(dtype, tuple(map(int, sizes.rstrip("]").split(","))), below=4)


def request(path: str, form: str) -> OpenRequest:
    return OpenRequest(
        FileReference(path), FORMS[form], "cpu", Training.SAVED, trusted=True, key=None
    )


def model_of(worker: InProcessWorker) -> Model:
    return worker._models[0]


def observe(worker: InProcessWorker, text: str) -> Observation:
    probe = ProbeRequest(single_model(0), Call((Argument(spec(text)),)), 0, Detail.PARAMETER_OPS)
    observation = replace(worker.ask(probe), read=())
    if isinstance(observation, Accepted):
        return replace(observation, unread=0)
    return observation


@pytest.mark.parametrize("form", ["scripted", "pickled"])
@pytest.mark.parametrize("name", MODELS)
def test_lazy_weights_change_no_observation(shelf: Shelf, name: str, form: str) -> None:
    module, calls = MODELS[name]
    asked = request(shelf.save(f"weights_{name}", module, form), form)
    without, whole = InProcessWorker(), InProcessWorker()
    opened = without.ask(asked)
    whole._models[0] = load_whole(asked)
    assert model_of(without).weights is not None
    assert load(asked).weights is not None
    assert opened.facts == collect_facts(model_of(whole))
    for text in [*calls, *calls]:
        assert observe(without, text) == observe(whole, text)


@pytest.mark.parametrize("form", ["scripted", "pickled"])
@pytest.mark.parametrize("width", [10, 300])
def test_a_model_that_writes_to_its_parameters_is_reported(
    shelf: Shelf, width: int, form: str
) -> None:
    """A large parameter is in read-only memory until the model is loaded as a whole."""
    worker = InProcessWorker()
    worker.ask(request(shelf.save(f"decaying_{width}", Decaying(width), form), form))
    with pytest.raises(CouldNotAttempt, match="modifies the model's own parameters"):
        observe(worker, f"float32[2,{width}]")


@pytest.fixture
def as_if_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no weights be small enough to be read only to confirm that slices are mixed."""
    monkeypatch.setattr("composecli.runtime.in_process.MAX_BYTES_TO_CONFIRM", 0)


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize("form", FORMS)
def test_a_contract_is_inferred_without_reading_a_tensor(shelf: Shelf, form: str) -> None:
    path = shelf.save("unread_encoder", encoder(), form, (torch.rand(2, 3, 16, 16),))
    worker = InProcessWorker()
    report = inspect(InspectRequest(path, Options(trust=(Trust(path),))), worker)
    assert report.model.contract is not None
    assert report.model.notes == ()
    weights = model_of(worker).weights
    assert weights is not None
    assert set(weights.unread) == {slot.record for slot in weights.slots}


@pytest.mark.usefixtures("as_if_large")
@pytest.mark.parametrize(
    ("form", "contract"),
    [
        ("scripted", "float32[N, D>=6] -> float32[N, 3]"),
        ("pickled", "float32[N, T>=6, 2] -> float32[N, 2, 3]"),
    ],
)
def test_only_the_table_that_an_op_indexes_with_is_read(
    shelf: Shelf, form: str, contract: str
) -> None:
    path = shelf.save("weights_indexed", Indexed(), form)
    worker = InProcessWorker()
    report = inspect(InspectRequest(path, Options(trust=(Trust(path),))), worker)
    assert str(report.model.contract) == contract
    assert report.model.notes == ("the forward reads values of table (aten::index)",)
    weights = model_of(worker).weights
    assert weights is not None
    assert len(weights.unread) == len(weights.slots) - 1


def test_a_result_that_depends_on_all_weights_reads_them(shelf: Shelf) -> None:
    path = shelf.save("weights_routed", Routed())
    worker = InProcessWorker()
    worker.ask(request(path, "scripted"))
    found = worker.ask(ProbeRequest(single_model(0), Call((Argument(spec("float32[3,4]")),))))
    assert isinstance(found, Accepted)
    assert str(found.result) == "float32[3, 4]"
    assert [(read.tensors, read.op) for read in found.read] == [
        (("gate.bias", "gate.weight"), "aten::index")
    ]


def test_code_that_reads_memory_finds_the_values(shelf: Shelf) -> None:
    worker = InProcessWorker()
    worker.ask(request(shelf.save("weights_listed", Listed(), "pickled"), "pickled"))
    assert isinstance(observe(worker, "float32[2,4]"), Accepted)


class Parts(nn.Module):
    """Has a tensor in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 3)
        self.parts = (torch.ones(10), 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x * self.parts[0] * self.parts[1])


class Listing(nn.Module):
    """Has a list of its parameters, as torch's recurrent layers do, and of another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 3)
        self.tensors = [self.fc.weight, torch.ones(10), self.fc.bias]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x * self.tensors[1], self.tensors[0], self.tensors[2])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(10, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0]


@pytest.mark.parametrize("module", [Listing(), Recurrent()], ids=["listing", "recurrent"])
def test_tensors_in_lists_are_the_parameters_of_the_module(
    tmp_path: Path, module: nn.Module
) -> None:
    path = tmp_path / "listing.pt"
    torch.jit.script(module).save(str(path))
    without, whole = InProcessWorker(), InProcessWorker()
    assert without.ask(request(str(path), "scripted")).facts.notes == ()
    whole._models[0] = load_whole(request(str(path), "scripted"))
    for text in ("float32[2,5,10]", "float32[2,5,11]"):
        assert observe(without, text) == observe(whole, text)
    weights = model_of(without).weights
    assert weights is not None
    weights.read()
    x = torch.rand(2, 5, 10)
    torch.testing.assert_close(model_of(without).module(x), model_of(whole).module(x))
    joined = join(
        JoinRequest(CheckRequest((str(path), str(path)), Mode.PARALLEL), str(tmp_path / "j.pt")),
        without,
    )
    assert joined.written is not None
    loaded, own = torch.jit.load(str(tmp_path / "j.pt")), torch.jit.load(str(path))
    torch.testing.assert_close(loaded(x), torch.cat([own(x), own(x)], 1))
    assert len(list(loaded.parameters())) == len(list(own.parameters()))


def test_a_model_that_cannot_be_lazy_is_loaded_whole_with_a_note(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Linear(10, 400), nn.Linear(400, 800)).eval()
    models = {
        "constants of its code": torch.jit.freeze(torch.jit.script(wide)),
        "data structures of the model's own": torch.jit.script(Parts()),
        "without an op": torch.jit.script(Looking()),
    }
    for reason, module in models.items():
        path = tmp_path / f"{reason}.pt"
        module.save(str(path))
        worker = InProcessWorker()
        opened = worker.ask(request(str(path), "scripted"))
        assert reason in opened.facts.notes[0]
        assert model_of(worker).weights is None
        assert isinstance(observe(worker, "float32[2,10]"), Accepted)
        assert isinstance(observe(worker, "float32[2,11]"), Rejected)


class Looking(nn.Module):
    """TorchScript that reads the memory of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen: list[float] = self.fc(x)[0].tolist()
        return x * len(seen)


def test_shared_tensors_stay_shared(shelf: Shelf) -> None:
    for form in ("scripted", "pickled"):
        worker = InProcessWorker()
        opened = worker.ask(request(shelf.save("weights_tied", Tied(), form), form))
        assert opened.facts.shared
        weights = model_of(worker).weights
        assert weights is not None
        weights.read()
        assert (
            worker.ask(request(shelf.save("weights_tied", Tied(), form), form)).facts.shared
            == opened.facts.shared
        )


def test_a_check_reads_no_tensor_of_either_model(shelf: Shelf) -> None:
    worker = InProcessWorker()
    first = shelf.save("weights_deep", Deep())
    report = check(CheckRequest((first, shelf.save("weights_head", nn.Linear(10, 3)))), worker)
    assert all(not model.notes for model in report.models)
    assert all(
        model.weights is not None and len(model.weights.unread) for model in worker._models.values()
    )


def _moved(data: bytes, device: str) -> bytes | None:
    return rewrite_device(data, operations(data), device)


class Placed(nn.Module):
    """Has the name of a device as a string."""

    def __init__(self) -> None:
        super().__init__()
        self.place = "cpu"
        self.fc = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def test_a_string_with_the_name_of_a_device_is_not_a_device(shelf: Shelf) -> None:
    path = shelf.save("placed", Placed())
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        data = archive.read(name)
    moved = _moved(data, "meta")
    assert moved is not None
    assert moved != data
    assert _moved(moved, "cpu") == _moved(data, "cpu")
    assert load(request(path, "scripted")).module.place == "cpu"


@pytest.mark.parametrize("text", ["cpu", "cuda:0", "a device of another name"])
def test_rewriting_the_device_of_a_pickle_changes_nothing_else(text: str) -> None:
    buffer = io.BytesIO()
    torch.save(encoder().state_dict(), buffer)
    with zipfile.ZipFile(buffer) as archive:
        data = archive.read("archive/data.pkl")
    moved = _moved(data, text)
    assert moved is not None
    assert _moved(moved, "cpu") == _moved(data, "cpu")
    assert moved.count(b"X" + len(text).to_bytes(4, "little") + text.encode()) == len(
        encoder().state_dict()
    )


FACTORY = """
import torch
from torch import nn


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x):
        return x[self.gate(x)[:, 0] > 0.5]


def plain():
    return nn.Linear(4, 2)
"""


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_factory_weights_are_read_only_if_the_result_depends_on_them(
    tmp_path: Path, name: str
) -> None:
    from safetensors.torch import save_file

    (tmp_path / "made.py").write_text(FACTORY)
    for factory, bias, rows in (("Gated", 1.0, 3), ("Gated", 0.0, 0), ("plain", 1.0, 3)):
        held = {"weight": torch.zeros(2, 4), "bias": torch.ones(2)}
        if factory == "Gated":
            held = {"gate.weight": torch.zeros(1, 4), "gate.bias": torch.full((1,), bias)}
        path = str(tmp_path / name)
        save_file(held, path) if name.endswith("safetensors") else torch.save(
            {"state_dict": held}, path
        )
        reference = FactoryReference(str(tmp_path / "made.py"), factory, path)
        asked = OpenRequest(
            reference, ModelKind.FACTORY, "cpu", Training.SAVED, trusted=False, key=None
        )
        worker = InProcessWorker()
        worker.ask(asked)
        found = worker.ask(ProbeRequest(single_model(0), Call((Argument(spec("float32[3,4]")),))))
        assert isinstance(found, Accepted)
        assert len(found.read) == (factory == "Gated")
        assert isinstance(found.result, TensorSpec)
        assert found.result.sizes[0] == rows


@pytest.mark.parametrize("form", ["scripted", "pickled"])
@pytest.mark.parametrize("order", [b"big", b"\xff\xfe"])
def test_a_file_in_another_byte_order_is_not_lazy(
    shelf: Shelf, tmp_path: Path, form: str, order: bytes
) -> None:
    path = tmp_path / "other.pt"
    rewrite(
        Path(shelf.save("weights_plain", nn.Linear(10, 5), form)),
        path,
        "byteorder",
        lambda _: order,
    )
    try:
        model = load(request(str(path), form))
    except CouldNotAttempt:
        return
    assert model.weights is None
