"""A factory for the sample weights: `sample_models/factory.py:make@sample_models/factory_weights.pt`."""

from torch import nn


def make() -> nn.Module:
    """`(N, 10) -> (N, 5)` through a hidden layer of 16."""
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5))
