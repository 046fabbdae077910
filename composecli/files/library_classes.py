"""Libraries whose module classes a user may trust by name, with `--trust-classes timm`.

A pickled module of such a library may make empty objects of its module classes, members of its
enums, and what else its policy lists: it calls no function and no constructor of the library. What
it refers to, the worker looks up in the installed library.
"""

from __future__ import annotations

from composecli.files.library_policies import LIBRARIES, POLICIES, LibraryPolicy
from composecli.files.pickle import Constructed, Global, PickleDict

# Functions that modules keep as attributes, which only compute.
_ACTIVATIONS = """
    celu elu gelu glu hardsigmoid hardswish hardtanh leaky_relu log_softmax mish relu relu6 selu
    sigmoid silu softmax softplus tanh
"""
FUNCTIONS = frozenset(f"torch.nn.functional.{name}" for name in _ACTIVATIONS.split())
# GELU has this name in pickles, whatever it was imported from.
_GELU = "torch._C._nn.gelu"
PARTIAL = Global("functools", "partial")

Libraries = tuple[str, ...]


def policy_of(name: Global) -> LibraryPolicy | None:
    """Return the policy of the library that a name is from, None if there is none."""
    root, _, _ = name.module.partition(".")
    return POLICIES.get(root)


def library_of(name: Global, libraries: Libraries) -> str | None:
    """Return which of the libraries has a name that its policy admits, None if none has it."""
    root, _, _ = name.module.partition(".")
    if root not in libraries or not name.name.isidentifier():
        return None
    if not POLICIES[root].has(name.module, name.name):
        return None
    return root


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


def is_named_tuple(constructed: Constructed) -> bool:
    """Return whether an object is made as a named tuple that its library's policy has."""
    match constructed:
        case Constructed(Global() as name, tuple(), is_new=True, state=None, items=[]):
            policy = policy_of(name)
            return policy is not None and policy.has_tuple(str(name))
    return False


def may_be_partial(name: object) -> bool:
    """Return whether a partial may be one of a function: an activation."""
    return isinstance(name, Global) and (str(name) in FUNCTIONS or str(name) == _GELU)


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


def is_text_in_place_of_a_method(key: object, value: object, libraries: Libraries) -> bool:
    """Return whether an attribute is one that a library sets to a text, and is a text."""
    if not isinstance(value, str):
        return False
    return any(key in POLICIES[library].texts for library in libraries)


def libraries_in(names: tuple[Global, ...]) -> Libraries:
    """Return the libraries that have some of these names."""
    found = dict[str, None]()
    for name in names:
        library = library_of(name, LIBRARIES)
        if library is not None:
            found[library] = None
    return tuple(found)
