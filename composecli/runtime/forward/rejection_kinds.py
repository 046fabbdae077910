"""What stopped a forward: its own error, or the lack of memory or of files."""

from __future__ import annotations

import errno
import re

import torch

from composecli.core.observations import RejectionKind

# The messages of torch's allocator, C++, the system, and oneDNN, which only reports that it has no
# primitive or memory. No descriptor of a primitive means that it does not support these sizes.
_NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|std::bad_alloc|[Cc]an(no|')t allocate memory|not enough memory|"
    r"unable to mmap|"
    r"could not (create|initialize|execute|get) an? (primitive(?! descriptor)|memory)"
)


def rejection_kind(error: BaseException) -> RejectionKind:
    """Classify an error: those for lack of files or memory say nothing about the model."""
    if _is_out_of_files(error):
        return RejectionKind.NO_FILE
    if _is_out_of_memory(error):
        return RejectionKind.OUT_OF_MEMORY
    return RejectionKind.ERROR


def _is_out_of_files(error: BaseException | None) -> bool:
    """Return whether it was caused by the limit of open files: a forward may import modules."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return True
        if "Too many open files" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether a forward failed for lack of memory, by its type or message."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return _NO_MEMORY.search(str(error)) is not None
