"""References: what a MODEL argument names, which depends on what exists.

A module of its own, because the command line needs it before it starts the child: reading files is
imported while the child starts.
"""

from __future__ import annotations

import os

from composecli.core.model_ref import FileReference, Reference, parse_reference


def locate(text: str) -> Reference:
    """Return the reference of a MODEL argument: a path that exists, or otherwise a factory.

    A link that leads nowhere exists, too: a folder of a stranger must not name code to run.
    """
    if os.path.lexists(text):
        return FileReference(text)
    return parse_reference(text)
