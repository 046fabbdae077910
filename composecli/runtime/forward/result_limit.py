"""A limit on the number of outputs: each is described, tried at other sizes, and printed."""

from __future__ import annotations

from typing import Any

from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.runtime.model import Model
from composecli.runtime.tensors import Values, tensors_in

# A model that lists its hidden states and its caches has hundreds.
MAX_OUTPUTS = 10_000


def require_few_outputs(model: Model, values: Values, result: Any) -> None:
    """Check the number of tensors in a result.

    A result with an item for each row of a long input is not refused: the number of its outputs
    follows from the input, and not from the model.

    Raises:
        CouldNotAttempt: if there are too many, and more than the input has values.
    """
    count = len(tensors_in(result))
    if count <= MAX_OUTPUTS:
        return
    if count > sum(tensor.numel() for tensor in tensors_in(values.flat())):
        title = f"the model returns {count:,} tensors, and composecli describes up to"
        title += f" {MAX_OUTPUTS:,}"
        help = ("return fewer tensors, such as one that stacks them",)
        raise CouldNotAttempt(Problem(Rule.TOO_MANY_OUTPUTS, title, model.name, help=help))
