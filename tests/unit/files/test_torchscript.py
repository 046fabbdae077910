"""What a TorchScript archive states, read from parsed pickles."""

from __future__ import annotations

from pathlib import Path

import pytest

from composecli.core.pytree import Argument, Call, Literal, TensorSpec
from composecli.files.archive import Archive
from composecli.files.pickle import Constructed, Global, ParsedPickle, Persistent, PickleDict
from composecli.files.torchscript import (
    PROVENANCE,
    Attribute,
    attributes,
    baked_devices,
    classes,
    provenance,
    traced_example,
    unknown_names,
    unsafe_parts,
)
from tests.unit.files.archives import write_archive


def tensor(key: str, storage: str = "FloatStorage") -> Constructed:
    reference = Persistent(("storage", Global("torch", storage), key, "cpu", 6))
    function = Global("torch._utils", "_rebuild_tensor_v2")
    return Constructed(function, (reference, 0, (2, 3), (3, 1), False, None))


def module(name: str, **attributes: object) -> Constructed:
    state = PickleDict(list(attributes.items()))
    return Constructed(Global("__torch__", name), (), is_new=True, state=state)


class ParsedArchive(Archive):
    """An archive whose pickles are parsed already."""

    def __init__(self, path: Path, **parsed: object) -> None:
        super().__init__(write_archive(path, {f"{name}.pkl": b"N." for name in parsed}))
        self.parsed = parsed

    def pickle(self, name: str) -> ParsedPickle:
        return ParsedPickle(self.parsed[name.removesuffix(".pkl")], ())


def test_attributes_are_listed_by_submodule(tmp_path: Path) -> None:
    tensors = Constructed(
        Global("torch.jit._pickle", "build_tensorlist"), ([tensor("1"), tensor("2")],)
    )
    inner = module("Inner", weight=tensor("0"), many=tensors, hidden=[tensor("3")], flag=True)
    root = module("Root", inner=inner, again=inner, bias=tensor("4"))
    with ParsedArchive(tmp_path / "model.pt", data=root) as archive:
        found = attributes(archive)
    inner_attributes = {
        "weight": Attribute(("data/0",)),
        "many": Attribute(("data/1", "data/2"), is_list=True),
        "hidden": Attribute(hides_tensors=True),
        "flag": Attribute(),
    }
    assert found[""] == {"bias": Attribute(("data/4",))}
    assert [found[name] for name in found if name] == [inner_attributes]


def test_an_archive_without_a_module_has_no_attributes(tmp_path: Path) -> None:
    with Archive(write_archive(tmp_path / "model.pt", {"data.pkl": b"N"})) as archive:
        assert attributes(archive) == {}


FLOATS = TensorSpec("float32", (2, 3))
FLOAT8S = TensorSpec("float8_e5m2", (2, 3))


def traced(*inputs: object) -> PickleDict:
    return PickleDict([("forward", inputs)])


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (traced(tensor("0")), Call((Argument(FLOATS),))),
        (traced(tensor("0"), 3), Call((Argument(FLOATS), Argument(Literal(3))))),
        (traced(tensor("0", "Float8_e5m2Storage")), Call((Argument(FLOAT8S),))),
        (traced(tensor("0", "QInt8Storage")), None),
        (traced(3), None),
        (traced(), None),
        (traced(tensor("0"), Constructed(Global("os", "system"), ())), None),
        (PickleDict([("encode", (tensor("0"),))]), None),
        (3, None),
    ],
)
def test_example_inputs_are_read_if_a_probe_can_be_made(
    tmp_path: Path, stored: object, expected: object
) -> None:
    with ParsedArchive(tmp_path / "model.pt", traced_inputs=stored) as archive:
        example = traced_example(archive)
    assert example == expected


def test_devices_are_found_in_code_alone(tmp_path: Path) -> None:
    members = {
        "code/a.py": b'x = torch.device("cpu")\ny = torch.device("cuda:1")\n',
        "code/a.py.debug_pkl": b'torch.device("mps")',
        "extra/notes": b'torch.device("xla")',
    }
    with Archive(write_archive(tmp_path / "model.pt", members)) as archive:
        assert baked_devices(archive) == ("cpu", "cuda:1")


@pytest.mark.parametrize(
    ("member", "name", "reason"),
    [
        ("data.pkl", Global("__torch__.my", "Model"), None),
        ("constants.pkl", Global("__torch__.my", "Model"), "a constant of the class"),
        ("data.pkl", Global("__torch__.torch.classes.rnn", "CellParamsBase"), None),
        ("data.pkl", Global("__torch__.torch.classes.my", "Thing"), "the extension"),
        ("data.pkl", Global("torch._utils", "_rebuild_qtensor"), None),
        ("data.pkl", Global("torch", "UInt16Storage"), None),
        ("data.pkl", Global("torch", "EvilStorage"), "data.pkl names torch.EvilStorage"),
        ("data.pkl", Global("torch._utils", "_rebuild_evil"), "_rebuild_evil"),
        ("data.pkl", Global("torch.jit._pickle", "evil"), "torch.jit._pickle.evil"),
        ("traced_inputs.pkl", Global("torch._utils", "_rebuild_parameter"), "names torch._utils"),
        ("data.pkl", Global("os", "system"), "data.pkl names os.system"),
    ],
)
def test_names_that_loading_would_use_are_checked(
    member: str, name: Global, reason: str | None
) -> None:
    parsed = {member: ParsedPickle(None, (name,))}
    texts = [found.text for found in unknown_names(parsed)]
    assert len(texts) == (reason is not None)
    assert all(str(reason) in text for text in texts)


def test_an_archive_that_is_read_as_an_old_one_is_refused(tmp_path: Path) -> None:
    with Archive(write_archive(tmp_path / "model.pt", {"model.json": b"{}"})) as archive:
        (reason,) = unsafe_parts(archive, {})
    assert "before 1.4" in reason.text


def test_the_archives_own_classes_are_listed_once() -> None:
    own, other = Global("__torch__", "Model"), Global("torch", "FloatStorage")
    parsed = {
        "data.pkl": ParsedPickle(None, (own, other)),
        "constants.pkl": ParsedPickle(None, (own,)),
    }
    assert classes(parsed) == (own,)


def test_provenance_is_read_if_it_is_there(tmp_path: Path) -> None:
    members = {"version": b"3"}
    with Archive(write_archive(tmp_path / "plain.pt", members)) as archive:
        assert provenance(archive) is None
    members[f"extra/{PROVENANCE}"] = b'{"parts": []}'
    with Archive(write_archive(tmp_path / "joined.pt", members)) as archive:
        assert provenance(archive) == '{"parts": []}'
