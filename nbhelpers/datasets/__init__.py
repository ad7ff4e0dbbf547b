"""What is read from disk: pictures, and the sets of pictures, phrases and masks.

Everything here may come from a stranger, so it is looked at before it is believed.
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
    quoted,
)
from nbhelpers.datasets.records import Broken
from nbhelpers.datasets.refer import referring

__all__ = [
    "load_image",
    "as_image",
    "Picture",
    "referring",
    "Referring",
    "Expression",
    "coco",
    "Coco",
    "Broken",
    "quoted",
    "open_regular",
    "FORMATS",
    "MAX_PIXELS",
    "UPRIGHT",
    "INVERSE",
]
