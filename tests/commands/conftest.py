"""The command line as a fixture."""

from tests.commands.running import composecli

__all__ = ["composecli"]
