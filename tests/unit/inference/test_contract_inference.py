"""Inference tries what is stated, adjusts what was accepted, and runs no call twice."""

from __future__ import annotations

from composecli.core.facts import ArgumentFact, LayerFact, NamedSizes
from composecli.core.observations import Accepted, Detail, Observation, ParameterOp, Rejected
from composecli.core.pytree import Argument, Call, TensorSpec, Tree, call_leaves
from composecli.inference import Found, Hints, NotFound, infer
from composecli.inference.candidates import Candidate
from composecli.inference.prober import Ask
from tests.parsing import spec
from tests.unit.inference.builders import Forward, call, facts, layer, observe, sizes

FACTS = facts(arguments=())


def ask(forward: Forward) -> Ask:
    """Return a worker that runs a model that is written as a function."""
    probe = observe(forward)
    return lambda tried, detail: probe(tried)


def test_stated_inputs_are_all_that_is_tried() -> None:
    calls = list[Call]()

    def refuse(tried: Call, detail: Detail) -> Observation:
        calls.append(tried)
        return Rejected(0, "RuntimeError", "no", "cpu")

    stated = Candidate(Call((Argument(TensorSpec("float32", (1, 2))),)))
    found = infer(Hints(FACTS, stated=stated), refuse)
    assert isinstance(found, NotFound)
    assert calls == [stated.call]


def test_no_call_is_probed_twice() -> None:
    calls = list[tuple[Call, Detail]]()

    def take(tried: Call, detail: Detail) -> Observation:
        calls.append((tried, detail))
        if not tried.arguments:
            return Rejected(0, "TypeError", "no", "cpu")
        value = tried.arguments[0].value
        assert isinstance(value, TensorSpec)
        return Accepted((TensorSpec("float32", (value.sizes[0], 7)),), "cpu")

    found = infer(Hints(FACTS), take)
    assert isinstance(found, Found)
    assert len(calls) == len(set(calls)) == found.probes


def test_first_layer_leads_to_the_contract() -> None:
    def linear(tried: Call) -> Tree | None:
        if not tried.arguments or len(sizes(tried)) < 2 or sizes(tried)[-1] != 10:
            return None
        return TensorSpec("float32", (*sizes(tried)[:-1], 5))

    found = infer(Hints(facts(layer("Linear", (5, 10)), parameters=50)), ask(linear))
    assert isinstance(found, Found)
    assert str(found.contract) == "float32[N, 10] -> float32[N, 5]"
    assert found.stopped == ""


def test_guessed_integers_that_index_nothing_become_floats() -> None:
    def scale(tried: Call) -> Tree | None:
        ((_, tensor),) = call_leaves(tried)
        return spec("float32[2]") if len(tensor.sizes) == 1 else None

    arguments = (ArgumentFact("lengths", "Tensor", required=True),)
    found = infer(Hints(facts(arguments=arguments, parameters=1)), ask(scale))
    assert isinstance(found, Found)
    assert found.contract.inputs[0].dtype == "float32"


def test_rank_of_a_given_tensor_is_kept_if_only_its_dtype_differs() -> None:
    def embed(tried: Call) -> Tree | None:
        if not tried.arguments:
            return None
        ((_, ids),) = call_leaves(tried)
        return TensorSpec("float32", (*ids.sizes, 3)) if ids.dtype == "int64" else None

    hints = Hints(
        facts(layer("Embedding", (50, 3)), parameters=150), given=call("float32[2, 3, 4]")
    )
    found = infer(hints, ask(embed))
    assert isinstance(found, Found)
    assert str(found.contract.example) == "int64[2, 3, 4]"


def test_size_that_is_broadcast_against_a_weight_becomes_the_weights() -> None:
    def add_positions(tried: Call, detail: Detail) -> Observation:
        tensors = [tensor for _, tensor in call_leaves(tried)]
        if len(tensors) != 1 or len(tensors[0].sizes) != 3 or tensors[0].sizes[1] not in (1, 16):
            return Rejected(0, "RuntimeError", "no", "cpu")
        op = ParameterOp("add", tensors[0], "positions", spec("float32[16, 8]"), inputs=(0,))
        return Accepted((spec("float32[2]"),), "cpu", (op,))

    found = infer(Hints(facts(parameters=128), given=call("float32[2, 1, 8]")), add_positions)
    assert isinstance(found, Found)
    assert str(found.contract.example) == "float32[2, 16, 8]"


def test_traced_recurrent_layer_has_the_width_of_its_weights() -> None:
    def any_width(tried: Call) -> Tree | None:
        if not tried.arguments or len(sizes(tried)) != 3:
            return None
        return TensorSpec("float32", (*sizes(tried)[:2], 20))

    weights = (NamedSizes("weight_ih_l0", "float32", (80, 10)),)
    recurrent = LayerFact("lstm", "LSTM", weights)
    hints = Hints(facts(recurrent, parameters=800), traced=call("float32[5, 2, 11]"))
    found = infer(hints, ask(any_width))
    assert isinstance(found, Found)
    assert str(found.contract) == "float32[N, T, 10] -> float32[N, T, 20]"
