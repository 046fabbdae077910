"""Fixtures of the tests of safety that run the command line."""

from tests.commands.running import composecli, installed

__all__ = ["composecli", "installed"]
