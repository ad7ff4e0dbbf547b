"""What is drawn for a reader: pictures, masks, maps, chunks, sentences, numbers, and sliders.

The one room that uses matplotlib, which its functions import as they are called.
"""

from nbhelpers.figures.charts import show_intervals, show_lines, show_matrix
from nbhelpers.figures.images import (
    in_proportion,
    overlay,
    show_chunks,
    show_image,
    show_images,
    show_maps,
    show_masks,
    show_rows,
)
from nbhelpers.figures.sentences import show_captions, show_tree
from nbhelpers.figures.sliders import Sliders, sliders

__all__ = ["show_image", "show_images", "show_masks", "show_maps", "show_chunks"]
__all__ += ["overlay", "show_rows", "in_proportion", "show_captions", "show_tree"]
__all__ += ["show_matrix", "show_lines", "show_intervals", "sliders", "Sliders"]
