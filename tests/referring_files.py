"""A small referring set in the files that the real ones come in, to be spoilt by the tests."""

import copy
import json

import numpy as np
from PIL import Image

SQUARE = [[1, 1, 6, 1, 6, 5, 1, 5]]
CROWD = {"size": [8, 10], "counts": [3, 5, 60, 12]}
INSTANCES = {
    "images": [
        {"id": 7, "file_name": "COCO_train2014_000000000007.jpg", "height": 8, "width": 10},
        {"id": 8, "file_name": "COCO_train2014_000000000008.jpg", "height": 8, "width": 10},
    ],
    "annotations": [
        {"id": 70, "image_id": 7, "category_id": 18, "segmentation": SQUARE, "iscrowd": 0},
        {"id": 80, "image_id": 8, "category_id": 1, "segmentation": CROWD, "iscrowd": 1},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
}


def reference(number, annotation, image, category, texts):
    """One reference as RefCOCO's files have it, with their junk behind the picture's number."""
    sentences = [
        {"sent_id": 10 * number + i, "sent": text, "raw": text, "tokens": text.split()}
        for i, text in enumerate(texts)
    ]
    return {
        "ref_id": number,
        "ann_id": annotation,
        "image_id": image,
        "category_id": category,
        "file_name": f"COCO_train2014_{image:012d}_{number}.jpg",
        "sent_ids": [sentence["sent_id"] for sentence in sentences],
        "split": "val",
        "sentences": sentences,
    }


REFS = [
    reference(1, 70, 7, 18, ["the brown dog", "dog on left"]),
    reference(2, 80, 8, 1, ["people"]),
]


def fresh():
    """References and instances, to be changed."""
    return copy.deepcopy(REFS), copy.deepcopy(INSTANCES)


def write_pictures(folder, size=(8, 10)):
    """Two pictures, every pixel random, as PNG behind the name .jpg: content decides."""
    images = folder / "train2014"
    images.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for entry in INSTANCES["images"]:
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / entry["file_name"], format="PNG")
    return images


def write_set(root, refs, instances, name="refcoco", by="unc"):
    """A set's folder with its JSON form; what is bytes goes to disk as it is."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in ((f"refs({by}).json", refs), ("instances.json", instances)):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        (folder / file).write_bytes(content)
    write_pictures(root)
    return root
