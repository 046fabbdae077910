"""The child: python -m composecli.runtime READING WRITING, two descriptors of pipes."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    # What is imported stays: to look for what of it might go takes a sixth of the time that importing torch does, and
    # a tenth of a second in the midst of the forwards.
    gc.disable()
    from composecli.runtime.server import serve

    gc.freeze()
    gc.enable()
    serve(int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
