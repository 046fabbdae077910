"""Declare torchvision's operators in every Python that starts with this folder on its path.

composecli's worker unpickles models of torchvision and transformers, which need them.
"""

from tests.zoo.operators import declare

declare()
