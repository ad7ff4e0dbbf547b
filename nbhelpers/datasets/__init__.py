"""Pictures on disk, and the sets of pictures, phrases and masks.

All of it may come from a stranger, so that everything is checked before it is used.
"""

from nbhelpers.datasets.coco import Coco, coco
from nbhelpers.datasets.expressions import Expression, Referring
from nbhelpers.datasets.pictures import (
    FORMATS,
    INVERSE,
    MAX_PIXELS,
    UPRIGHT,
    Picture,
    as_image,
    load_image,
    open_regular,
)
from nbhelpers.datasets.records import Broken
from nbhelpers.datasets.refer import referring
from nbhelpers.errors import quoted

__all__ = ["load_image", "as_image", "Picture"]
__all__ += ["referring", "Referring", "Expression", "coco", "Coco", "Broken"]
__all__ += ["quoted", "open_regular", "FORMATS", "MAX_PIXELS", "UPRIGHT", "INVERSE"]
