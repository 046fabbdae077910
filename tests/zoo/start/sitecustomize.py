"""Run by every Python that starts with this folder on its path: composecli's child, which unpickles torchvision's and
transformers' models, has torchvision's operators too."""

from tests.zoo.operators import declare

declare()
