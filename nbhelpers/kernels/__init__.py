"""The operators that everything here rests on, behind one name each.

Neither ever holds an ``n x n`` matrix: a wanted column of the cross-attention is
``exp(q . k_t * scale - lse)`` and the completed map ``A S`` is itself attention, with the map in
the place of the values. `eager` writes both in stock PyTorch, `sweep` cuts maps at all thresholds
at once.
"""

from nbhelpers.kernels.eager import columns, complete
from nbhelpers.kernels.sweep import threshold_sweep

__all__ = ["columns", "complete", "threshold_sweep"]
