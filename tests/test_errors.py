"""An error quotes the call that it refuses, as it was written, and stays one short line."""

import inspect
import math
import re

import numpy as np
import pytest
import torch

from nbhelpers import captions, completion, datasets, embeddings, kernels, masks, metrics, scores
from nbhelpers.datasets.regions import Region
from nbhelpers.errors import Shown, refused

MAPS = torch.rand(2, 3, 4)
CALLS = {
    "to_pixels(size=(0, 4))": lambda: masks.to_pixels(MAPS, (0, 4)),
    "to_masks(threshold=1.5)": lambda: masks.to_masks(MAPS, (3, 4), 1.5),
    "to_masks(threshold=nan)": lambda: masks.to_masks(MAPS, (3, 4), math.nan),
    "complete(steps=0)": lambda: completion.complete(MAPS, ["a layer"], steps=0),
    "score_maps(softmax_over='keys')": lambda: scores.score_maps([], None, softmax_over="keys"),
    "score_maps(normalize=True)": lambda: scores.score_maps([], None, normalize=True),
    "score_maps(subtokens='first')": lambda: scores.score_maps([], None, subtokens="first"),
    "caption(max_tokens=501)": lambda: captions.caption(None, None, max_tokens=501),
    "caption(about=' ')": lambda: captions.caption(None, None, about=" "),
    "embed(alpha=3)": lambda: embeddings.embed("a ring", (), None, alpha=3),
    "embed(tail='none')": lambda: embeddings.embed("a ring", (), None, tail="none"),
    "embed(target=0)": lambda: embeddings.embed("a ring", (), None, target=0),
    "embed(isolate='others', target=None)": lambda: embeddings.embed(
        "a ring", (), None, isolate="others"
    ),
    "choose(backend='cuda')": lambda: kernels.choose(MAPS, "cuda"),
    "threshold_sweep(thresholds=[0.5, 0.25])": lambda: kernels.threshold_sweep(
        MAPS, MAPS > 0.5, torch.tensor([0.5, 0.25])
    ),
    "columns(index=[2, 5])": lambda: kernels.columns(
        MAPS[None], MAPS[None], [2, 5], 1.0, subset=[1, 2]
    ),
    "precision_at(values=[2.0])": lambda: metrics.precision_at(np.array([2.0])),
    "paired_bootstrap(level=1, resamples=9)": lambda: metrics.paired_bootstrap(
        np.ones(2), np.zeros(2), [1, 2], level=1, resamples=9
    ),
    "mask(merge='sum')": lambda: Region((2, 3), runs=(6,)).mask("sum"),
    "coco(split='../val')": lambda: datasets.coco("nowhere", "../val"),
    "referring('refcoco', 'vall')": lambda: datasets.referring("refcoco", "vall", "nowhere"),
}


@pytest.mark.parametrize("call", CALLS)
def test_an_error_quotes_the_call(call, monkeypatch):
    # Unchecked, as a caller without the shape checks would reach them.
    for module in (
        captions,
        completion,
        embeddings,
        kernels,
        masks,
        metrics,
        scores,
        datasets,
        Region,
    ):
        for name, function in vars(module).copy().items():
            if inspect.isfunction(function) and hasattr(function, "__wrapped__"):
                monkeypatch.setattr(module, name, inspect.unwrap(function))
    with pytest.raises(ValueError, match="^" + re.escape(f"{call}: ")) as caught:
        CALLS[call]()
    assert str(caught.value).isprintable()


def test_what_came_is_shown_safe_and_short():
    said = str(refused("segment", "a phrase is wanted", phrase="\x1b[31m" + "ring " * 99))
    assert said.isprintable() and len(said) < 250
    assert said.startswith(r"segment(phrase='\x1b[31m") and "a phrase is wanted; got '" in said
    both = str(refused("f", "a and b differ", a=1, b=[2, None]))
    assert both == "f(a=1, b=[2, None]): a and b differ; got 1 and [2, None]"
    assert str(refused("f", "w", a=Shown("b"))) == "f(a='b'): w; got 'b'"
