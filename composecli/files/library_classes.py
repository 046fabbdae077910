"""Libraries whose module classes a user may trust by name, with `--trust-classes timm`.

A pickled module of such a library may make empty objects of its classes, and nothing else: it calls
no function of the library. What it refers to, the worker looks up in the installed library.
"""

from __future__ import annotations

from composecli.files.pickle import Constructed, Global, PickleDict

# Those that import all of their models at once, so that a file does not choose what is imported.
LIBRARIES = ("torchvision", "timm")
# Functions that modules keep as attributes, which only compute.
_ACTIVATIONS = """
    celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax mish relu relu6 selu
    sigmoid silu softmax softplus tanh
"""
FUNCTIONS = frozenset(f"torch.nn.functional.{name}" for name in _ACTIVATIONS.split())
LIBRARY_FUNCTIONS = frozenset(
    ("torchvision.ops.boxes.box_iou", "torchvision.models.optical_flow.raft._pass_through_h")
)
# Objects with a few numbers, which a detector keeps beside its modules.
LIBRARY_DATA = frozenset(
    f"torchvision.models.detection._utils.{name}"
    for name in ("BalancedPositiveNegativeSampler", "BoxCoder", "Matcher", "SSDMatcher")
)
PARTIAL = Global("functools", "partial")

Libraries = tuple[str, ...]


def library_of(name: Global, libraries: Libraries) -> str | None:
    """Return which of the libraries has a name, None if none has it."""
    root, _, _ = name.module.partition(".")
    if root in libraries and name.name.isidentifier():
        return root
    return None


def is_granted(name: Global, libraries: Libraries) -> bool:
    """Return whether a name may be looked up because the classes of these libraries are trusted."""
    if not libraries:
        return False
    is_common = str(name) in FUNCTIONS or name == PARTIAL
    return is_common or library_of(name, libraries) is not None


def is_enum_member(constructed: Constructed) -> bool:
    """Return whether an object is made as the member of an enum is: from its value alone."""
    match constructed:
        case Constructed(Global(), (str() | int(),), is_new=False, state=None, items=[]):
            return True
    return False


def is_plain_partial(constructed: Constructed) -> bool:
    """Return whether a call makes a `functools.partial` of a name, with plain values."""
    match constructed:
        case Constructed(function, (Global() as name,), is_new=False, items=[]):
            if function != PARTIAL:
                return False
        case _:
            return False
    match constructed.state:
        case None:
            return True
        case (Global() as same, tuple(positional), PickleDict(named), None) if same == name:
            values = [*positional, *(value for _, value in named)]
            return all(isinstance(value, bool | int | float | str | None) for value in values)
    return False


def libraries_in(names: tuple[Global, ...]) -> Libraries:
    """Return the libraries that have some of these names."""
    found = dict[str, None]()
    for name in names:
        library = library_of(name, LIBRARIES)
        if library is not None:
            found[library] = None
    return tuple(found)
