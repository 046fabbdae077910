"""Portability: which devices a model is tied to, and when that matters."""

from __future__ import annotations

import pytest

from composecli.commands.opened_model import OpenedModel
from composecli.commands.portability import device_notes, device_ties
from composecli.commands.requests import Options
from composecli.commands.resolve import Target
from composecli.core.facts import ModelFacts
from composecli.core.model_ref import FileReference, ModelKind
from composecli.files.sniff import ModelFile


def part(
    *baked: str, dtypes: tuple[str, ...] = ("float32",), devices: tuple[str, ...] = ("cpu",)
) -> OpenedModel:
    """A model with these devices in its code, and these dtypes and devices of its tensors."""
    kind = ModelKind.TORCHSCRIPT
    file = ModelFile("a.pt", kind, 10, devices=baked)
    facts = ModelFacts("Net", (), "eval", (), 0, 0, 0, dtypes, devices, ())
    return OpenedModel(Target(FileReference("a.pt"), kind, file), facts, 0, 0)


@pytest.mark.parametrize(
    ("baked", "device", "titles"),
    [
        ((), "cpu", []),
        (("cpu",), "cpu", []),
        (("cuda:0",), "cuda:1", []),
        (("cpu", "cuda:3"), "cpu", ["a.pt contains cuda:3 as a constant but runs on cpu here"]),
        (("cpu",), "cuda", ["a.pt contains cpu as a constant but runs on cuda here"]),
    ],
)
def test_another_device_in_the_code_is_noted(
    baked: tuple[str, ...], device: str, titles: list[str]
) -> None:
    notes = device_notes((part(*baked),), Options(device=device))
    assert [note.title for note in notes] == titles
    assert all(note.code == "CC305" for note in notes)


def test_a_model_that_is_named_twice_is_noted_once() -> None:
    model = part("cuda:3")
    assert len(device_notes((model, model), Options())) == 1


def test_exploring_on_meta_is_noted() -> None:
    assert [note.code for note in device_notes((part(),), Options(device="meta"))] == ["CC309"]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (part("cuda:3", "cpu"), "cuda:3, cpu as a constant"),
        (part(devices=("cpu", "cuda:0")), "several devices"),
        (part(dtypes=("qint8",)), "quantised"),
        (part(dtypes=("float64",)), "mps"),
    ],
)
def test_each_tie_is_one_sentence(model: OpenedModel, words: str) -> None:
    (tie,) = device_ties(model)
    assert words in tie


def test_an_ordinary_model_has_no_ties() -> None:
    assert device_ties(part()) == ()
