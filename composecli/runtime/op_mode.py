"""The mode that sees every op: what PyTorch has for that, without what it imports for those who compile."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class OpMode(TorchDispatchMode):  # type: ignore[misc]
    """Subclasses say in `__torch_dispatch__` what an op does while they are entered."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled here, and the guard against it imports torch._dynamo: as long as torch itself takes."""
        return False
