"""The shapes in signatures are checked while tests run, and cheaply."""

import jaxtyping
import numpy as np
import pytest
import torch

from nbhelpers import attention, masks


def test_a_shape_that_its_signature_refuses_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="chunk h w"):
        masks.to_pixels(torch.zeros(3, 4), (8, 8))
    assert masks.to_pixels(torch.eye(3)[None], (8, 8)).dtype == np.float32


def test_functions_inside_of_functions_are_not_wrapped_at_every_call():
    """Else the hooks of each layer compile their checks anew in each pass: 0.1 s a pass."""
    assert hasattr(attention.record_attention, "__wrapped__")
    inner = [
        c for c in attention._layer_keepers.__wrapped__.__code__.co_consts if hasattr(c, "co_name")
    ]
    assert "keep_query" in [code.co_name for code in inner]
    names = attention._layer_keepers.__wrapped__.__code__.co_names
    assert "jaxtyping" not in names
