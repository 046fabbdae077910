"""A program of torch.export, run op by op from its JSON.

torch.export could run it, but takes as long to import as torch itself.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from composecli.files.pt2_layout import SCHEMA_MAJOR, ExportedProgram
from composecli.runtime.pt2.guards import Guards
from composecli.runtime.pt2.nodes import (
    ArgumentReader,
    Environment,
    Unsupported,
    names_in,
    read_nodes,
)
from composecli.runtime.pt2.schema import InputSpec, Node, OutputSpec
from composecli.runtime.pt2.signature import (
    argument_names,
    keyword_names,
    lifted_tensors,
    mutations,
    user_inputs,
    user_outputs,
)
from composecli.runtime.pt2.tree_spec import read_spec


class Program(nn.Module):  # type: ignore[misc]
    """An exported program as a module.

    Attributes:
        argument_names: the arguments that a caller passes.
        lifted: the tensors that must be registered before it runs, by their names in the exported
            module.
    """

    def __init__(self, data: ExportedProgram, device: str) -> None:
        """Read a program, whose tensors are to be on `device`.

        Raises:
            Unsupported: if only torch.export can run it.
            UnknownGuard: if a condition on its input is not understood.
        """
        super().__init__()
        version = data["schema_version"]
        if version["major"] != SCHEMA_MAJOR:
            raise Unsupported("another version of the schema")
        module = data["graph_module"]
        call = module["module_call_graph"][0]["signature"]
        self._in_spec = read_spec(call["in_spec"])
        self._out_spec = read_spec(call["out_spec"])
        names = call.get("forward_arg_names") or []
        self.argument_names = tuple(argument_names(self._in_spec, names))
        signature = module["signature"]
        inputs = cast(list[InputSpec], signature["input_specs"])
        outputs = cast(list[OutputSpec], signature["output_specs"])
        self._mutations = tuple(mutations(inputs, outputs))
        kept = set(names_in(outputs))
        for mutation in self._mutations:
            kept |= {mutation.target, mutation.source}
        nodes = cast(list[Node], module["graph"]["nodes"])
        self._calls = tuple(read_nodes(nodes, device, kept))
        self.lifted = tuple(lifted_tensors(inputs))
        self._inputs = tuple(user_inputs(inputs))
        self._guards = Guards(data, self._inputs)
        reader = ArgumentReader(device)
        returned = user_outputs(outputs)
        self._outputs = tuple(reader.read(argument) for argument in returned)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Run the program.

        Raises:
            TypeError: if there is a keyword argument that it does not have.
            ValueError: if the arguments have another structure than the exported ones.
            RuntimeError: if a guard does not hold, or an op fails.
        """
        ordered = self._order(keywords)
        leaves, spec = tree_flatten((arguments, ordered))
        if spec != self._in_spec:
            raise ValueError(
                "the input has another structure than the program takes:"
                f" {spec}, not {self._in_spec}"
            )
        values: Environment = {}
        for lifted in self.lifted:
            owner = self.get_submodule(lifted.module)
            values[lifted.value] = getattr(owner, lifted.attribute)
        values.update(zip(self._inputs, leaves, strict=True))
        self._guards.check(values, arguments, ordered)
        for call in self._calls:
            call.run(values)
        for mutation in self._mutations:
            values[mutation.target].copy_(values[mutation.source])
        results = [get(values) for get in self._outputs]
        return tree_unflatten(results, self._out_spec)

    def _order(self, keywords: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments in the order that the program has them in."""
        names = keyword_names(self._in_spec)
        ordered = {name: keywords[name] for name in names if name in keywords}
        unknown = keywords.keys() - ordered.keys()
        if unknown:
            listed = ", ".join(sorted(unknown))
            raise TypeError(f"the program takes no {listed}")
        return ordered
