"""Binding Words to Pixels: the book's functions, in the order of the pipeline.

Importing it needs torch, NumPy and Pillow alone: diffusers, transformers, spaCy and matplotlib
are imported by the functions that use them.
"""

import importlib
import os
import sys
from typing import Any

# In a program of ours (`python -m nbhelpers ...`, of which Python says "-m" while it looks for
# it) OpenMP's threads sleep at a barrier. By default they spin, and where other work keeps the
# cores busy a command then takes many times as long. libgomp asks once, when torch loads it.
if sys.argv[:1] == ["-m"]:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from nbhelpers import datasets, figures, kernels, metrics
from nbhelpers.attention import Layer, record_attention
from nbhelpers.batches import segment_batch
from nbhelpers.captions import caption
from nbhelpers.chunks import Chunk, find_head, find_target, noun_chunks
from nbhelpers.completion import complete
from nbhelpers.datasets import load_image, referring
from nbhelpers.denoising import denoise_once, encode_image
from nbhelpers.display import show_source, tabulate
from nbhelpers.embeddings import Prompt, embed
from nbhelpers.figures import (
    overlay,
    show_chunks,
    show_image,
    show_images,
    show_intervals,
    show_lines,
    show_maps,
    show_masks,
    show_matrix,
    show_rows,
    sliders,
)
from nbhelpers.masks import to_masks
from nbhelpers.metrics import iou
from nbhelpers.models import Models, load_models
from nbhelpers.scores import score_maps

# Not on first use: the functions must stand where Python puts the modules of the same name.
from nbhelpers.segment import Segmentation, segment
from nbhelpers.settings import SETTINGS, Settings
from nbhelpers.weights import data_folder

__all__ = ["load_models", "Models", "data_folder", "load_image", "referring"]
__all__ += ["caption", "noun_chunks", "find_target", "find_head", "Chunk", "embed", "Prompt"]
__all__ += ["encode_image", "record_attention", "denoise_once", "Layer"]
__all__ += ["score_maps", "complete", "to_masks", "iou"]
__all__ += ["segment", "segment_batch", "evaluate", "Settings", "SETTINGS", "Segmentation"]
__all__ += ["show_image", "show_images", "show_chunks", "show_masks", "show_maps", "show_source"]
__all__ += ["overlay", "show_rows", "show_matrix", "show_lines", "show_intervals"]
__all__ += ["tabulate", "sliders"]
__all__ += ["datasets", "figures", "kernels", "metrics", "evaluation"]


def __getattr__(name: str) -> Any:
    if name in ("evaluation", "evaluate"):  # they stand on all stages: imported on first use
        evaluation = importlib.import_module("nbhelpers.evaluation")
        return evaluation if name == "evaluation" else evaluation.evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
