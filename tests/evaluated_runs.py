"""Complete runs of made-up counts, as an evaluation leaves them in a folder."""

import random
from dataclasses import asdict, is_dataclass

from nbhelpers.evaluation import RunOptions, Store, run
from nbhelpers.evaluation.jobs import as_json

KINDS = ("attribute", "position", "noun")
ORDERS = ("alone", "1 of 2", "2 of 2")
CLASSES = {"classes": ["background", "cat", "dog"]}


def made_settings(split, variants, prompts="phrase", **changes):
    """What a manifest says of a run."""
    dataset = {"name": "stickers", "split": split, "broken": 0, "pictures": None}
    return {
        "format": 4,
        "dataset": dataset | (CLASSES if prompts == "classes" else {}),
        "prompts": prompts,
        "model": {"name": "stickers", "revision": None},
        "variants": {
            name: as_json(asdict(settings)) if is_dataclass(settings) else settings
            for name, settings in variants.items()
        },
        **dict.fromkeys(("calibration", "code", "packages", "device", "dtype", "parser"), "x"),
        **changes,
    }


def made_items(pictures, prompts="phrase"):
    """Three expressions a picture, one of each kind, or one in each of three orders."""
    found = []
    for image in range(1, pictures + 1):
        for number in range(3):
            item = {"id": f"{image}-{number}", "expression": 10 * image + number, "image": image}
            item |= {"phrase": f"the {'red ' * number}cat", "category": "cat"}
            item |= {"kind": KINDS[number] if prompts == "phrase" else "attribute"}
            found.append(item | ({"order": ORDERS[number]} if prompts == "orders" else {}))
    return found[::3] if prompts == "first" else found


def made_counts(split, name, item):
    """Intersections and unions that depend on nothing but these, highest around a threshold."""
    rng = random.Random(f"{split} {name} {item['id']}")
    peak, height = rng.uniform(0.3, 0.7), rng.uniform(0.2, 0.9)
    shared, either = [], []
    for t in range(101):
        either.append(rng.randrange(400, 500))
        shared.append(int(either[-1] * max(0.0, height - abs(t / 100 - peak))))
    return [shared, either]


def made_run(folder, split, variants, *, pictures=5, prompts="phrase", counts=made_counts, **more):
    """Write a complete run."""
    items = made_items(pictures, prompts)

    def evaluate(some):
        return [
            {"id": item["id"], "counts": {name: counts(split, name, item) for name in variants}}
            for item in some
        ]

    store = Store(folder, made_settings(split, variants, prompts, **more), items)
    run(store, lambda: evaluate, RunOptions(batch=len(items), progress=False))
    return folder
