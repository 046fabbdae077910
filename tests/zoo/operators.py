"""The operators of torchvision's compiled half, declared and not implemented, where that does not load beside a CPU
build of torch: without them neither torchvision nor what imports it can be imported."""

from __future__ import annotations

import re
import sys

import torch

_declared = list[torch.library.Library]()


def declare() -> None:
    """Import torchvision, declaring each operator that it misses; nothing where there is no torchvision."""
    for _ in range(16):
        try:
            import torchvision  # noqa: F401
        except ImportError:
            return
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor a, Tensor b, float c) -> Tensor")
            _declared.append(library)
            for name in [name for name in sys.modules if name.startswith("torchvision")]:
                del sys.modules[name]
        else:
            return
