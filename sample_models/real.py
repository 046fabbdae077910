"""Run composecli on models that others wrote.

They are silero-vad, a torchvision ResNet-18 and a small transformers BERT. Their packages are
installed from the package index into a separate folder. No weights are downloaded: the ResNet and
the BERT have random ones. A package that is not available is skipped, with a message.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent / "real"
SITE = HERE / "site"
# None of these brings a torch of its own: torchvision and silero-vad are installed without their
# dependencies, and transformers does not depend on torch.
PACKAGES = {
    "silero-vad": ("--no-deps", "silero-vad"),
    "torchvision": ("--no-deps", "torchvision==0.28.0", "pillow"),
    "transformers": ("transformers",),
}
UNFITTING_HEADS = ("head_7.pt", "head_512.pt", "head_768.pt")
VAD = "--input 'float32[1,512]' --input 'sr:=16000'"

_libraries = list[torch.library.Library]()


def install(name: str) -> bool:
    """Install a package into the separate folder; return whether it is there.

    The environment and its torch stay as they are.
    """
    marker = SITE / f".{name}"
    if marker.exists():
        return True
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(SITE)]
    command = [*pip, *PACKAGES[name]]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
        return False
    marker.touch()
    return True


class BertClasses(nn.Module):
    """A BERT that returns its pooled output alone, as deployments trace it."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.bert(input_ids=input_ids, attention_mask=attention_mask)[1]


def silero() -> list[str]:
    """Save the silero-vad model and two heads; return the commands to try on them."""
    source = SITE / "silero_vad" / "data" / "silero_vad.jit"
    (HERE / "silero_vad.pt").write_bytes(source.read_bytes())
    torch.jit.script(nn.Sequential(nn.Linear(1, 4), nn.ReLU())).save(str(HERE / "after_vad.pt"))
    torch.jit.script(nn.Linear(7, 4)).save(str(HERE / "head_7.pt"))
    return [
        f"inspect silero_vad.pt {VAD}",
        f"check silero_vad.pt after_vad.pt {VAD}",
        f"check silero_vad.pt head_7.pt {VAD}",
        f"join silero_vad.pt after_vad.pt {VAD} -o speech.pt --force",
    ]


def resnet() -> list[str]:
    """Save a ResNet-18 in two forms and two heads; return the commands to try on them."""
    _torchvision_ops()
    from torchvision.models import resnet18

    model = resnet18(weights=None).eval()
    torch.jit.script(model).save(str(HERE / "resnet18.pt"))
    sizes = {
        0: torch.export.Dim("batch"),
        2: torch.export.Dim("h", min=33),
        3: torch.export.Dim("w", min=33),
    }
    exported = torch.export.export(model, (torch.rand(2, 3, 224, 224),), dynamic_shapes=(sizes,))
    torch.export.save(exported, HERE / "resnet18.pt2")
    torch.jit.script(nn.Linear(1000, 10)).save(str(HERE / "head_1000.pt"))
    torch.jit.script(nn.Linear(512, 10)).save(str(HERE / "head_512.pt"))
    commands = list[str]()
    for name in ("resnet18.pt", "resnet18.pt2"):
        commands += [
            f"inspect {name}",
            f"check {name} head_1000.pt",
            f"check {name} head_512.pt",
            f"join {name} head_1000.pt -o classifier.pt --force",
        ]
    return commands


def _torchvision_ops() -> None:
    """Declare the operators of torchvision's compiled half.

    That half does not load next to a CPU build of torch.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    # The declarations last as long as this object.
    _libraries.append(library)
    for _ in range(16):
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library.define(f"{missing[1]}(Tensor a, Tensor b, float c) -> Tensor")
            for name in [name for name in sys.modules if name.startswith("torchvision")]:
                del sys.modules[name]
        else:
            return


def bert() -> list[str]:
    """Save a traced BERT and two heads; return the commands to try on them."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=500,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    model = BertClasses(BertModel(config)).eval()
    ids = torch.randint(0, 500, (2, 16))
    torch.jit.trace(model, (ids, torch.ones_like(ids))).save(str(HERE / "bert.pt"))
    torch.jit.script(nn.Linear(64, 3)).save(str(HERE / "head_64.pt"))
    torch.jit.script(nn.Linear(768, 3)).save(str(HERE / "head_768.pt"))
    return [
        "inspect bert.pt",
        "check bert.pt head_64.pt",
        "check bert.pt head_768.pt",
        "join bert.pt head_64.pt -o intents.pt --force",
    ]


def run(command: str) -> bool:
    """Run a command; return whether it exits with 1 if the head does not fit, otherwise with 0."""
    expected = int(any(f" {head}" in command for head in UNFITTING_HEADS))
    print(f"\n$ composecli {command}", flush=True)
    words = [sys.executable, "-m", "composecli", *shlex.split(command)]
    code = subprocess.run(words, cwd=HERE, check=False).returncode
    print(f"(exit code {code})", flush=True)
    return code == expected


def main() -> int:
    """Try every model that is available; return 1 if a command ends with the wrong exit code."""
    SITE.mkdir(parents=True, exist_ok=True)
    sys.path.append(str(SITE))
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    failed = list[str]()
    makers: dict[str, Callable[[], list[str]]] = {
        "silero-vad": silero,
        "torchvision": resnet,
        "transformers": bert,
    }
    for name, make in makers.items():
        if not install(name):
            print(f"\n{name}: skipped, the package is not available here")
            continue
        try:
            commands = make()
        except Exception as error:
            print(f"\n{name}: skipped, it does not work here: {type(error).__name__}: {error}")
            continue
        for command in commands:
            if not run(command):
                failed.append(command)
    print(f"\n{len(failed)} commands ended with the wrong exit code")
    for command in failed:
        print(f"  {command}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
