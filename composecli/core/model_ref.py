"""Model references: the MODEL argument of a command, as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_FACTORY = re.compile(
    r"(?P<module>[A-Za-z_][\w.]*|.*\.py):(?P<factory>[A-Za-z_]\w*)@(?P<weights>.+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class FileReference:
    """A model file."""

    path: str

    @property
    def name(self) -> str:
        """The text of the argument."""
        return self.path


@dataclass(frozen=True, slots=True)
class FactoryReference:
    """A callable without arguments that returns the module, and the file with its weights.

    `module` is a dotted name, or the path of a Python file.
    """

    module: str
    factory: str
    path: str

    @property
    def name(self) -> str:
        """The text of the argument."""
        return f"{self.module}:{self.factory}@{self.path}"


Reference = FileReference | FactoryReference


def parse_reference(text: str) -> Reference:
    """Parse `a.pt`, `package.module:factory@weights` or `file.py:factory@weights`."""
    match = _FACTORY.fullmatch(text)
    if match is None:
        return FileReference(text)
    return FactoryReference(match["module"], match["factory"], match["weights"])


@dataclass(frozen=True, slots=True)
class KindTraits:
    """How one kind of model differs from the others.

    `lists_arguments`: the file names every argument of forward. A Python forward may accept more.
    `runs_user_code`: loading calls a Python function of the user, which may open any file and need
    not return the same model each time.
    """

    lists_arguments: bool = False
    runs_user_code: bool = False


class ModelKind(StrEnum):
    """A kind of model. Its value is the name that users see."""

    TORCHSCRIPT = "TorchScript archive"
    EXPORTED = "torch.export archive"
    PICKLED = "pickled nn.Module"
    FACTORY = "factory and weights"

    @property
    def traits(self) -> KindTraits:
        """The traits of this kind."""
        return KIND_TRAITS[self]


KIND_TRAITS = {
    ModelKind.TORCHSCRIPT: KindTraits(lists_arguments=True),
    ModelKind.EXPORTED: KindTraits(lists_arguments=True),
    ModelKind.PICKLED: KindTraits(),
    ModelKind.FACTORY: KindTraits(runs_user_code=True),
}
