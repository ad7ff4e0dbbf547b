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

from nbhelpers.attention import Layer, denoise_once, record_attention
from nbhelpers.batches import segment_batch
from nbhelpers.captions import caption
from nbhelpers.chunks import Chunk, find_target, noun_chunks
from nbhelpers.completion import complete
from nbhelpers.datasets import load_image, referring
from nbhelpers.display import tabulate
from nbhelpers.embeddings import Prompt, embed
from nbhelpers.knobs import turn
from nbhelpers.latents import encode_image
from nbhelpers.masks import to_masks
from nbhelpers.metrics import iou
from nbhelpers.models import Models, load_models
from nbhelpers.scores import score_maps

# Not on first use: the function must stand where Python puts the module of the same name.
from nbhelpers.segment import SETTINGS, Segmentation, Settings, segment
from nbhelpers.weights import data_folder

# These import matplotlib, on first use.
_DRAWN = {
    "figures": ("show_image", "show_chunks", "show_masks", "show_maps", "show_source", "overlay"),
    "comparisons": ("show_rows",),
    "charts": ("show_matrix", "show_lines", "show_intervals"),
}

__all__ = [
    "load_models",
    "Models",
    "data_folder",
    "load_image",
    "referring",
    "caption",
    "noun_chunks",
    "find_target",
    "Chunk",
    "embed",
    "Prompt",
    "encode_image",
    "record_attention",
    "denoise_once",
    "Layer",
    "score_maps",
    "complete",
    "to_masks",
    "iou",
    "segment",
    "segment_batch",
    "Settings",
    "SETTINGS",
    "Segmentation",
    "show_image",
    "show_chunks",
    "show_masks",
    "show_maps",
    "show_source",
    "overlay",
    "show_rows",
    "show_matrix",
    "show_lines",
    "show_intervals",
    "tabulate",
    "turn",
]


def __getattr__(name: str) -> Any:
    if name == "labs":  # the checks of the exercises; they stand on all of it
        return importlib.import_module("nbhelpers.labs")
    for module, names in _DRAWN.items():
        if name in names:
            return getattr(importlib.import_module(f"nbhelpers.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name for names in _DRAWN.values() for name in names)])
