"""Masks against true masks: IoU, its means, and intervals over pictures.

Two means go by one name and are mixed up in print. Here **mean IoU** (mIoU) is the mean over
expressions of the IoU, so that a small thing counts as much as a large one; **overall IoU**
(oIoU, also "cumulative IoU") is the sum of the intersections over the sum of the unions, so that
large things rule. A mask and a truth that are both empty have an IoU of 0, as in pycocotools.
Sums are exact (`math.fsum`, whole numbers), so that no order of the expressions changes a bit.
"""

from nbhelpers.metrics.bootstrap import (
    Interval,
    paired_bootstrap,
    paired_bootstrap_classes,
    paired_bootstrap_overall,
)
from nbhelpers.metrics.classes import IGNORED, class_intersection_union
from nbhelpers.metrics.overlaps import (
    LEVELS,
    intersection_union,
    iou,
    ious,
    mean_iou,
    overall_iou,
    precision_at,
)

__all__ = ["iou", "intersection_union", "ious", "mean_iou", "overall_iou"]
__all__ += ["precision_at", "LEVELS"]
__all__ += ["class_intersection_union", "IGNORED"]
__all__ += ["paired_bootstrap", "paired_bootstrap_overall", "paired_bootstrap_classes", "Interval"]
