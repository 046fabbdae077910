"""Extension ops: told from torch's own by their namespaces, and the libraries to import."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from composecli.core.rules import Rule
from composecli.files.safety.allowlist import allowed
from composecli.files.safety.extension_ops import importing, is_extension, libraries_of
from composecli.files.safety.refusals import Reason, of_program


def test_every_op_of_torch_is_its_own() -> None:
    names = {schema.name for schema in torch._C._jit_get_all_schemas()}
    of_tests = ("ccdoubling", "ccshifting", "torchvision", "mylib", "composecli")
    others = {name for name in names if is_extension(name) and not name.startswith(of_tests)}
    assert not others
    assert not any(map(is_extension, allowed()))


@pytest.mark.parametrize(
    ("names", "libraries"),
    [
        (("torchvision::nms", "torchvision::roi_align"), ("torchvision",)),
        (("fbgemm::jagged",), ("fbgemm_gpu",)),
        (("image::decode", "a::b"), ("torchvision", "a")),
        (("torchaudio.Decoder",), ("torchaudio",)),
    ],
)
def test_the_library_has_the_name_of_the_namespace(
    here: Path, names: tuple[str, ...], libraries: tuple[str, ...]
) -> None:
    assert libraries_of(names, "model.pt") == libraries


def test_a_file_near_the_model_is_the_library(here: Path) -> None:
    Path("models").mkdir()
    Path("models/ops.py").write_text('torch.library.custom_op("a::b")')
    assert libraries_of(("a::b",), "models/model.pt") == ("models/ops.py",)
    assert importing(("models/ops.py",), ("a::b",)).text == (
        "--import models/ops.py --allow-op a::b"
    )


def test_an_op_of_torch_is_never_allowed_by_the_way(here: Path) -> None:
    extension, saving = Reason("it calls a::b", "a::b"), Reason("it calls save", "aten::save")
    alone = of_program("m.pt2", "archive", (extension,), frozenset(), imports=False)
    assert alone is not None
    assert alone.rule is Rule.PACKAGE_MISSING
    both = of_program("m.pt2", "archive", (extension, saving), frozenset(), imports=False)
    assert both is not None
    assert both.rule is Rule.PROGRAM_NOT_TRUSTED
    assert [remedy.text for remedy in both.remedies] == [
        "--trust m.pt2 --import a",
        "--import a --allow-op a::b --allow-op aten::save",
    ]
    imported = of_program("m.pt2", "archive", (extension,), frozenset(), imports=True)
    assert imported is not None
    assert imported.rule is Rule.PROGRAM_NOT_TRUSTED
    assert imported.remedies[1].text == "--allow-op a::b"
