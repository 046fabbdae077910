"""A factory for the sample weights: `factory.py:make@factory_weights.pt`."""

from torch import nn


def make() -> nn.Module:
    """Return a model `(N, 10) -> (N, 5)` with a hidden layer of 16."""
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 5))
