"""Declare the operators of torchvision's compiled half without implementing them.

The compiled half does not load next to a CPU build of torch. Without its operators neither
torchvision nor anything that imports it can be imported.
"""

from __future__ import annotations

import re
import sys

import torch

MAX_OPERATORS = 16
# The declarations last as long as these objects.
_declared = list[torch.library.Library]()


def declare() -> None:
    """Import torchvision, if it is installed, and declare each operator that it misses.

    Raises:
        RuntimeError: if the import fails for another reason.
    """
    for _ in range(MAX_OPERATORS):
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
