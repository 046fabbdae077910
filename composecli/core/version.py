"""The version of composecli, in the one place that everything else reads."""

from __future__ import annotations

VERSION = "0.1.0"
