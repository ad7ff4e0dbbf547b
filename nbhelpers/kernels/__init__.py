"""The two operators that everything here rests on, behind one name each.

Neither ever holds an ``n x n`` matrix: a wanted column of the cross-attention is
``exp(q . k_t * scale - lse)`` and the completed map ``A S`` is itself attention, with the map in
the place of the values. `eager` writes both in stock PyTorch.
"""

from nbhelpers.kernels.eager import columns, complete

__all__ = ["columns", "complete"]
