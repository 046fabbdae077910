"""The command line as a fixture."""

from tests.commands.running import composecli, installed

__all__ = ["composecli", "installed"]
