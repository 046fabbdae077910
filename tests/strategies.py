"""Hypothesis strategies for specs and ports."""

from __future__ import annotations

from hypothesis import strategies as st

from composecli.core.contract import Port
from composecli.core.dims import Dim, Fixed, Free, Unknown
from composecli.core.pytree import TensorSpec

DTYPES = ["float32", "float64", "float16", "int64", "int32", "bool"]
SPECS = st.builds(
    lambda dtype, sizes: TensorSpec(dtype, tuple(sizes)),
    st.sampled_from(DTYPES),
    st.lists(st.integers(1, 6), max_size=5),
)
DIMS: st.SearchStrategy[Dim] = st.one_of(
    st.integers(1, 24).map(Fixed),
    st.sampled_from(["N", "T", "H"]).map(Free),
    st.just(Unknown("not tried")),
    st.builds(lambda low: Free("W", low), st.integers(1, 6)),
)
PORTS = st.builds(
    lambda dtype, dims: Port("x", (), dtype, None if dims is None else tuple(dims)),
    st.sampled_from(DTYPES),
    st.one_of(st.none(), st.lists(DIMS, max_size=4)),
)
