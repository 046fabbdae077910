"""The child process: `python -m composecli.runtime READING WRITING`, two pipe descriptors."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Import torch and the runtime, then answer requests until the parent closes its pipe."""
    # Imported objects are never collected. Scanning them adds a sixth to the time of importing
    # torch, and later a tenth of a second in the middle of the forwards.
    gc.disable()
    from composecli.runtime.server import serve

    gc.freeze()
    gc.enable()
    serve(int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
