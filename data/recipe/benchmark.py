"""The drawn referring benchmark, in the files of COCO and RefCOCO.

Three things a scene, two of one noun in two colors, so that the noun alone does not tell them
apart. In testB one of the two is a pair of color and noun that training never shows, and all
things are of a style of drawing that training never shows: as RefCOCO's testB holds other things
than its testA.
"""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image
from tqdm import tqdm

from nbhelpers.files import write_whole
from recipe.art import HELD_OUT_STYLE, NOUNS
from recipe.captions import article, name, position
from recipe.scenes import SIZE, Scene, Thing, draw, sample_scene

SPLITS = {"val": 200, "testA": 400, "testB": 200}
# Added to the training seed, so that no scene of the benchmark is one of training's.
APART = 1_000_003
LICENSES = [
    {"id": 1, "name": "MIT", "url": "https://opensource.org/license/mit"},
    {"id": 2, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    {"id": 3, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"},
]
LICENSE_OF = {"fluent3d": 1, "flat": 1, "noto": 2, "twemoji": 3}


def scene_of(image_id: int, split: str, *, seed: int = 0) -> Scene:
    """Return the scene of a benchmark picture."""
    rng = np.random.default_rng((seed + APART, image_id))
    held_out = split == "testB"
    style = HELD_OUT_STYLE if held_out else None
    while True:
        scene = sample_scene(rng, count=3, twins=True, unseen=held_out, style=style)
        if len({(thing.noun, thing.color) for thing in scene.things}) == 3:
            return scene


def split_of(image_id: int) -> str:
    """Return the split of a benchmark picture; ids count up from 1 through the splits.

    Raises:
        ValueError: if there is no such picture.
    """
    first = 1
    for split, count in SPLITS.items():
        if first <= image_id < first + count:
            return split
        first += count
    raise ValueError(f"pictures are numbered 1 to {sum(SPLITS.values())} (got {image_id})")


def expressions(thing: Thing, scene: Scene) -> list[tuple[str, str]]:
    """Return the (kind, phrase) pairs that mean this thing and no other of the scene.

    Kinds are "attribute" (color and noun), "position" (noun and side) and "noun".
    """
    rivals = [t for t in scene.things if t is not thing and t.noun == thing.noun]
    found = [("attribute", f"the {name(thing)}")] if thing.color else []
    where = position(thing, scene)
    if where and all(position(rival, scene) != where for rival in rivals):
        found.append(("position", f"{thing.noun} {where}"))
    if not rivals:
        found.append(("noun", f"{article(thing.noun)} {thing.noun}"))
    return found


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> dict[str, list[int]]:
    """Return a mask in COCO's uncompressed run-length form: columns first, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")]).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def write_benchmark(folder: Path, *, seed: int = 0, progress: bool = True) -> None:
    """Write `images/`, `instances.json`, `refs(stickers).json` and `refs(stickers).p`.

    Args:
        folder: where they go.
        seed: the training seed; the benchmark's scenes are drawn from another.
        progress: whether to show a bar.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    refs: list[dict[str, Any]] = []
    sentence = 0
    total = sum(SPLITS.values())
    for image_id in tqdm(range(1, total + 1), "benchmark", disable=not progress):
        split = split_of(image_id)
        scene = scene_of(image_id, split, seed=seed)
        picture, masks = draw(scene)
        file_name = f"{image_id:06d}.png"
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", optimize=True)
        write_whole(folder / "images" / file_name, buffer.getvalue())
        height, width = SIZE
        images.append(
            {
                "id": image_id,
                "file_name": file_name,
                "height": height,
                "width": width,
                "license": LICENSE_OF[scene.style],
                "style": scene.style,
            }
        )
        for thing, mask in zip(scene.things, masks, strict=True):
            category = NOUNS.index(thing.noun) + 1
            number = len(annotations) + 1
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            top, left = int(rows[0]), int(columns[0])
            box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
            annotations.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": run_lengths(mask),
                    "area": int(mask.sum()),
                    "bbox": box,
                    "iscrowd": 0,
                    "attributes": {"color": thing.color},
                }
            )
            sentences = []
            for kind, phrase in expressions(thing, scene):
                entry = {"sent_id": sentence, "sent": phrase, "raw": phrase}
                sentences.append({**entry, "tokens": phrase.split(), "kind": kind})
                sentence += 1
            refs.append(
                {
                    "ref_id": number - 1,
                    "ann_id": number,
                    "category_id": category,
                    "image_id": image_id,
                    "file_name": file_name,
                    "sent_ids": [entry["sent_id"] for entry in sentences],
                    "split": split,
                    "sentences": sentences,
                }
            )
    instances = {
        "info": {"description": "The sticker world", "version": "1", "seed": seed},
        "licenses": LICENSES,
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": index + 1, "name": noun, "supercategory": "sticker"}
            for index, noun in enumerate(NOUNS)
        ],
    }
    write_whole(folder / "instances.json", json.dumps(instances, separators=(",", ":")).encode())
    write_whole(folder / "refs(stickers).json", json.dumps(refs, separators=(",", ":")).encode())
    write_whole(folder / "refs(stickers).p", pickle.dumps(refs, protocol=2))
