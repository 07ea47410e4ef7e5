"""The gates against their definition on maps of random size."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_gates import check

from asycmst_ops.testing import make_features


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, most) for most in (2, 5, 13, 13)]),
    patch=st.integers(1, 6),
    split=st.booleans(),
    last=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_sizes(
    shape: tuple[int, int, int, int], patch: int, split: bool, last: bool, seed: int
) -> None:
    b, c, h, w = shape
    layout: Any = "channels_last" if last else "contiguous"
    features = make_features((b, 2 * c, h, w), layout=layout, seed=seed)
    grad = make_features((b, 2 * c, h, w), layout=layout, seed=seed + 1)
    check(features, grad, patch=patch, scope="split" if split else "both")
