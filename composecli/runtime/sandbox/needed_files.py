"""The files that the child needs once it is locked, apart from the models.

`tests/safety/test_lock.py` traces which files honest runs open, and holds them against this list.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from glob import escape, glob

from composecli.runtime.sandbox.known_packages import files_of, import_only, known_packages
from composecli.runtime.sandbox.landlock import Allowed, Rights
from composecli.workers.protocol import SandboxRequest

# What C libraries ask the system about processors, memory, the time zone and the language. No
# process but this one: the number is that of a process that may not fork.
_SYSTEM_FILES = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/maps",
    "/proc/self/status",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/sys/kernel/mm/transparent_hugepage",
    "/usr/lib/locale",
    "/usr/share/zoneinfo",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_LIBRARY_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_SYSTEM_LIBRARIES = ("lib", "usr/lib")
_OTHER_PACKAGES = ("site-packages", "dist-packages")
# The driver finds its devices there, and reads their features.
_CUDA_FILES = ("/proc", "/sys")
_CUDA_DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/dxg")


def prepare() -> None:
    """Have Python and torch look up now the folders and names that they would search for later.

    torch asks for the temporary folder and the user's name when it imports more of itself. Nothing
    is written there: if there is no such folder, any other will do.
    """
    try:
        folder = tempfile.gettempdir()
    except OSError:
        folder = tempfile.tempdir = os.sep
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)
    os.environ.setdefault("LOGNAME", "nobody")


def needed_files(request: SandboxRequest) -> Iterator[Allowed]:
    """Yield the files that the child may open: models, Python, its packages, some of the system.

    From now on, other packages cannot be imported, unless the user named some.
    """
    for path in request.read:
        yield Allowed(path, Rights.READ_FILE)
    for path in request.write:
        yield Allowed(path, Rights.WRITE)
    for path in (*_SYSTEM_FILES, *_standard_library(), *_packages(request), *_libraries()):
        yield Allowed(path)
    for path in _DEVICES:
        yield Allowed(path, Rights.DEVICE)
    if request.uses_cuda:
        yield from _cuda()


def _standard_library() -> Iterator[str]:
    """Yield the standard library's files and folders, without packages that are installed there."""
    folders = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    for folder in folders:
        if not os.path.isdir(folder):
            continue
        for entry in os.scandir(folder):
            if entry.name not in _OTHER_PACKAGES:
                yield entry.path


def _packages(request: SandboxRequest) -> Iterator[str]:
    """Yield the files of the packages that are known to be imported late, or of all folders.

    A package that the user named may import any other, from wherever packages are found.
    """
    if request.imports or request.libraries:
        for path in sys.path:
            yield os.path.realpath(path or ".")
        return
    specs = known_packages()
    for spec in specs.values():
        yield from files_of(spec)
    import_only(specs)


def _libraries() -> Iterator[str]:
    """Yield where the libraries of C are that this process uses, and those that they may need."""
    yield from _LIBRARY_FOLDERS
    for folder in {os.path.dirname(path) for path in _mapped_libraries()}:
        yield from glob(os.path.join(escape(folder), "lib*.so*"))


def _mapped_libraries() -> Iterator[str]:
    """Yield the shared libraries that are loaded in this process, except the system's."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if ".so" in os.path.basename(path) and not path.startswith(_SYSTEM_LIBRARIES):
                yield f"/{path}"


def _cuda() -> Iterator[Allowed]:
    """Yield the files and devices that the driver of a GPU opens."""
    for path in _CUDA_FILES:
        yield Allowed(path)
    for pattern in _CUDA_DEVICES:
        for path in glob(pattern):
            yield Allowed(path, Rights.DEVICE)
