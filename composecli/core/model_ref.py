"""What a MODEL argument names: a path, or a factory and its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_FACTORY = re.compile(
    r"(?P<module>[A-Za-z_][\w.]*|.*\.py):(?P<factory>[A-Za-z_]\w*)@(?P<weights>.+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class FileReference:
    path: str

    @property
    def name(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class FactoryReference:
    """A callable without arguments that makes the module, and the file with its weights.

    `module` is a dotted name, or the path of a Python file.
    """

    module: str
    factory: str
    path: str

    @property
    def name(self) -> str:
        return f"{self.module}:{self.factory}@{self.path}"


Reference = FileReference | FactoryReference


def parse_reference(text: str) -> Reference:
    """`a.pt`, `package.module:factory@weights` or `file.py:factory@weights`."""
    found = _FACTORY.fullmatch(text)
    if found is None:
        return FileReference(text)
    return FactoryReference(found["module"], found["factory"], found["weights"])


class ModelKind(StrEnum):
    TORCHSCRIPT = "TorchScript archive"
    EXPORTED = "torch.export archive"
    PICKLED = "pickled nn.Module"
    FACTORY = "factory and weights"
