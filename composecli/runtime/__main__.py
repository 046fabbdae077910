"""The child process: `python -m composecli.runtime READING WRITING`, two pipe descriptors."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Import torch and the runtime, then answer requests until the parent closes its pipe."""
    # Imported objects are never collected. Scanning them adds a sixth to the time of importing
    # torch, and later a tenth of a second in the middle of the forwards.
    gc.disable()
    from composecli.runtime.server import serve

    gc.freeze()
    gc.enable()
    reading, writing = map(int, sys.argv[1:])
    for descriptor in (reading, writing):
        # A program that trusted code starts is not to answer for this process.
        os.set_inheritable(descriptor, False)
    # A script that is imported may parse its arguments: it was given none.
    del sys.argv[1:]
    serve(reading, writing)


if __name__ == "__main__":
    main()
