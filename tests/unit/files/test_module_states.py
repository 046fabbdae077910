"""What the state of an object in a pickle may be."""

from __future__ import annotations

import pytest

from composecli.files.module_states import state_problems
from composecli.files.pickle import Constructed, Global, PickleDict

LINEAR = Global("torch.nn.modules.linear", "Linear")
RELU = Global("torch.nn.functional", "relu")
ORDERED = Global("collections", "OrderedDict")


def layer(state: object) -> Constructed:
    return Constructed(LINEAR, (), is_new=True, state=state)


def state(**attributes: object) -> PickleDict:
    return PickleDict(list(attributes.items()))


@pytest.mark.parametrize(
    "node",
    [
        layer(state(in_features=3, training=True, padding_mode="zeros", size=(1, 2))),
        layer(state(activation=RELU)),
        layer(state(dtype=Global("torch", "float32"))),
        layer(state(_modules=Constructed(ORDERED, ()), _parameters=PickleDict())),
        layer(state(_compiled_call_impl=None, __overloads__=PickleDict())),
        Constructed(ORDERED, (), state=state(_metadata=PickleDict())),
        Constructed(Global("torch._utils", "_rebuild_parameter"), ()),
    ],
)
def test_states_that_torch_writes_are_accepted(node: Constructed) -> None:
    assert list(state_problems((node,))) == []


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (layer([("forward", RELU)]), "is not a dict"),
        (layer((("forward", RELU), ("training", True))), "is not a dict"),
        (layer((state(), state(forward=RELU))), "is not a dict"),
        (layer(None), "is not a dict"),
        (Constructed(LINEAR, (), True, state(), [("forward", RELU)]), "is not a dict"),
        (layer(PickleDict([("a", 1), ("a", 2)])), "twice"),
        (layer(PickleDict([(3, 1)])), "twice"),
        (layer(state(__class__=LINEAR)), "__class__ is overridden"),
        (layer(state(__dict__=PickleDict())), "__dict__ is overridden"),
        (layer(state(_compiled_call_impl=layer(state()))), "_compiled_call_impl is overridden"),
        (layer(state(bias=RELU)), "bias is a function"),
        (layer(state(_modules=layer(state()))), "_modules is not a dict"),
        (layer(state(_parameters=PickleDict([(0, None)]))), "_parameters is not a dict"),
        (layer(state(_buffers=Constructed(ORDERED, ([],)))), "_buffers is not a dict"),
        (Constructed(ORDERED, (), state=state(items=RELU)), "attributes of its own"),
        (Constructed(Global("torch._utils", "_rebuild_tensor_v2"), (), state=()), "filled"),
        (Constructed(Global("torch", "Size"), ([1],), is_new=True), "filled"),
        (
            Constructed(
                Global("torch._utils", "_rebuild_parameter_with_state"),
                (None, True, None, state(detach=RELU)),
            ),
            "not data",
        ),
    ],
)
def test_other_states_are_refused(node: Constructed, problem: str) -> None:
    (found,) = state_problems((node,))
    assert problem in found
