"""Scenes in which all three seals are needed: `python -m book.tools.leak_scenes`.

The target's phrase stands second of three, where every leak can reach it: from the phrase before
it, into the phrase after it, and into the end token and the padding. The chapter on embeddings
shows the first scene of this list, and says that it was found by this search: of the scenes where
leaving out any one seal costs `LEAST` or more, the one in which all three gain most.
"""

import argparse
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm import tqdm

import nbhelpers as nb
from nbhelpers.datasets import Expression
from nbhelpers.denoising import add_noise
from nbhelpers.segment import attend, make_prompt, target_maps
from nbhelpers.settings import resolve

SEALS = [*itertools.product((False, True), repeat=3)]  # the target's chunk, the others, the tail
LEAST = 0.03  # of IoU
ISOLATE: dict[tuple[bool, bool], Any] = {
    (False, False): "none",
    (True, False): "target",
    (False, True): "others",
    (True, True): "every",
}


def triples(data: nb.datasets.Referring) -> list[list[Expression]]:
    """Of each picture its three things as before, target and after; the first two are twins.

    A person's color stands behind the noun ("in red"), out of its chunk; such scenes are left out.
    """
    found = []
    for number in sorted({e.image_id for e in data.expressions}):
        first: dict[int, Expression] = {}
        for e in data.expressions:
            articled = e.text.split()[0] in ("the", "a", "an")
            if e.image_id == number and articled and " in " not in e.text:
                first.setdefault(e.annotation_id, e)
        for before, target in itertools.permutations(first.values(), 2):
            others = [e for e in first.values() if e not in (before, target)]
            if len(others) == 1 and before.category == target.category:
                found.append([before, target, *others])
    return found


def measure(triple: list[Expression], data: nb.datasets.Referring, models: nb.Models) -> list:
    """The IoU of the target's mask for each combination of seals, at sealed's threshold."""
    names = (e.text.split(" ", 1)[1] for e in triple)
    before, target, after = (f"an {n}" if n[0] in "aeiou" else f"a {n}" for n in names)
    base = resolve(models, "sealed")  # as the chapter reads all of them
    settings = [
        replace(base, isolate=ISOLATE[own, others], tail="empty" if tail else "prompt")
        for own, others, tail in SEALS
    ]
    prompts = [
        make_prompt(target, models, one, before=f"{before}, ", after=f" and {after}")
        for one in settings
    ]
    image, truth = data.image(triple[1].image_id), data.mask(triple[1])
    steps = base.timesteps or ()
    noised = add_noise(nb.encode_image(image, models), steps, models)
    attention = attend([noised] * len(prompts), prompts, steps, models)
    _, maps = target_maps(attention, prompts, base)
    threshold = 0.5 if base.threshold is None else base.threshold
    masks = nb.to_masks(maps[:, 0], image.shape[:2], threshold)
    return [nb.iou(mask, truth) for mask in masks]


def main() -> None:
    """Print the scenes, the largest gain first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="stickers")
    parser.add_argument("--split", default="val")
    parser.add_argument("--first", type=int, help="only so many scenes (default: all)")
    parser.add_argument("--most", type=int, default=10, help="scenes to print (default: 10)")
    options = parser.parse_args()
    models, data = nb.load_models(options.model), nb.referring("stickers", options.split)
    rows = []
    for triple in tqdm(triples(data)[: options.first], "scenes"):
        ious = measure(triple, data, models)
        if ious[-1] - max(ious[:-1]) >= LEAST:
            rows.append((ious[-1] - ious[0], ious, triple))
    for gain, ious, triple in sorted(rows, key=lambda row: -row[0])[: options.most]:
        words = ", ".join(e.text for e in triple)
        told = " ".join(f"{v:.2f}" for v in np.array(ious))
        print(f"{triple[0].image_id}: {words}; gain {gain:+.2f}; plain to sealed {told}")


if __name__ == "__main__":
    main()
