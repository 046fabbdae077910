"""Files of the system that torch reads once, at its first op of a kind.

`/proc/cpuinfo` and `/sys/devices/system/cpu` tell it which instructions the processor has. If they
cannot be opened at that time, every conversion from or to float16 fails until the process ends.
"""

from __future__ import annotations

import torch


def read_system_files() -> None:
    """Have torch, oneDNN and FBGEMM read these files now, before opening files is forbidden."""
    weight = torch.zeros(1, 1)
    torch.nn.functional.linear(weight, weight)
    weight.half().float()
    if torch.backends.quantized.engine == "none":
        return
    quantized = torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(quantized, None)
    torch.ops.quantized.linear_dynamic(weight, packed)
