"""The operators that everything here rests on, behind one name each.

None ever holds an ``n x n`` matrix: a wanted column of the cross-attention is
``exp(q . k_t * scale - lse)``, and the completed map ``A S`` is itself attention, with the map in
the place of the values. `eager` writes them in stock PyTorch, for any device, `_tiled` in Triton,
for NVIDIA GPUs, and `_launch` starts those. `choose` says which of the two serves a tensor, and
every operator can be told with ``backend=``.
"""

from nbhelpers.kernels.dispatch import (
    aggregate,
    choose,
    columns,
    columns_from_lse,
    complete,
    row_lse,
    threshold_sweep,
)

__all__ = ["aggregate", "choose", "columns", "columns_from_lse", "complete"]
__all__ += ["row_lse", "threshold_sweep"]
