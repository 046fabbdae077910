"""Ops of extension libraries: those that torch has only after another module was imported.

An archive names such an op and not the module that registers it. Most libraries use their own name
as the namespace. A file of the user's own is recognized by its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from composecli.core.errors import Remedy
from composecli.files.archive import Archive, NotAnArchive
from composecli.files.pt2_layout import program_members
from composecli.files.source_code import files_that_define_ops, folders_near

# The namespaces of torch 2.13 itself, some of which it registers when they are used.
_OF_TORCH = frozenset(
    (
        "_c10d_functional", "_c10d_functional_autograd", "_dtensor", "_inductor_test", "_native",
        "_quantized", "_test", "aten", "c10d", "c10d_functional", "cplib", "cuda", "debug_mode_ops",
        "debugprims", "export", "flex_lib", "fsdp", "higher_order", "inductor", "inductor_prims",
        "metal", "mkl", "mkldnn", "mkldnn_prepacked", "onednn", "onnx", "onnx_symbolic",
        "prepacked", "prim", "prims", "profiler", "quantization", "quantized",
        "quantized_decomposed", "rngprims", "sparse", "static_runtime", "streams", "symm_mem",
        "vulkan_prepack", "xnnpack",
    )
)  # fmt: skip
# Libraries whose namespace is not the name of the module that registers it.
_LIBRARIES = {
    "fbgemm": "fbgemm_gpu",
    "image": "torchvision",
    "torch_ipex": "intel_extension_for_pytorch",
    "torchcodec_ns": "torchcodec",
}
_OP_IN_CODE = re.compile(rb"\bops\.(\w+)\.(\w+)\(")
_CLASS_IN_CODE = re.compile(rb"__torch__\.torch\.classes\.(\w+)\.(\w+)")
_TARGET = re.compile(r"torch\.ops\.(\w+)\.(\w+)(\.\w+)?")


def is_extension(op: str) -> bool:
    """Return whether an op such as `torchvision::nms` is none of torch's own."""
    return op.partition("::")[0] not in _OF_TORCH


def ops_in_code(archive: Archive) -> tuple[str, ...]:
    """Return the extension ops that the code of a TorchScript archive calls, by their text.

    The text may hide a call, so this is not a scan: it only helps to say what is missing.
    """
    ops = dict[str, None]()
    for match in _matches(archive, _OP_IN_CODE):
        ops[f"{match[1].decode()}::{match[2].decode()}"] = None
    return tuple(filter(is_extension, ops))


def classes_in_code(archive: Archive) -> tuple[str, ...]:
    """Return the classes of C++ extensions that the code of a TorchScript archive names."""
    names = dict[str, None]()
    for match in _matches(archive, _CLASS_IN_CODE):
        names[f"{match[1].decode()}.{match[2].decode()}"] = None
    return tuple(names)


def _matches(archive: Archive, pattern: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
    """Yield the matches in the code of an archive."""
    for name in sorted(archive.names):
        if name.startswith("code/") and name.endswith(".py"):
            yield from pattern.finditer(archive.read(name))


def ops_in_programs(archive: Archive) -> tuple[str, ...]:
    """Return the extension ops that the programs of a torch.export archive call."""
    ops = dict[str, None]()
    for member in program_members(archive):
        for text in _texts(archive, member):
            match = _TARGET.fullmatch(text)
            if match is not None:
                ops[f"{match[1]}::{match[2]}"] = None
    return tuple(filter(is_extension, ops))


def _texts(archive: Archive, member: str) -> Iterator[str]:
    """Yield the texts that are targets of calls in a program, at any depth."""
    try:
        stack: list[Any] = [archive.json(member)]
    except NotAnArchive:
        return
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            target = value.get("target")
            if isinstance(target, str):
                yield target
            stack += value.values()
        elif isinstance(value, list):
            stack += value


def libraries_of(names: Iterable[str], path: str) -> tuple[str, ...]:
    """Return the modules that register ops or classes, as `--import` names them.

    They are Python files near the model at `path`, or libraries that have the namespace's name.
    """
    libraries = dict[str, None]()
    for name in names:
        namespace = re.split(r"::|\.", name)[0]
        files = files_that_define_ops(namespace, folders_near(path))
        library = next(files, _LIBRARIES.get(namespace, namespace))
        libraries[library] = None
    return tuple(libraries)


def importing(libraries: tuple[str, ...], allowing: Iterable[str] = ()) -> Remedy:
    """Return the remedy that imports libraries, and allows some of their ops."""
    words = list[str]()
    for library in libraries:
        words += ["--import", library]
    for op in allowing:
        words += ["--allow-op", op]
    return Remedy(tuple(words), effect="runs the code of the library that registers the op")
