"""Spoil good files at random and load them: a loader may refuse them, but in its own words.

    python tests/fuzz_datasets.py --seconds 120

Each loader runs in a process of its own with a limit of memory, so that a crash is seen and the
input that caused it is kept. Good is: the content, or ValueError or OSError with a message that
can be shown. Anything else, a signal above all, is a fault.
"""

import argparse
import io
import json
import os
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as cocomask
from referring_files import CROWD, SQUARE, fresh, write_set

from nbhelpers.datasets import load_image, referring
from nbhelpers.datasets._pickles import read_pickle
from nbhelpers.datasets._unpickling import plain
from nbhelpers.datasets.records import Record, parse_json
from nbhelpers.datasets.regions import read_region

NUMBERS = (0, -1, 1, 2, 0.5, 1e9, -1e9, 2**31, 2**32 + 4, 2**63, 10**400, float("nan"))
VALUES = (*NUMBERS, float("inf"), True, None, "", "x", "\ud800", "\x00", [], {}, [[]], "é" * 50)


def spoil_bytes(rng, content):
    """A few bytes changed, cut, doubled or put in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, some = rng.randrange(len(data) + 1), rng.randrange(1, 9)
        action = rng.randrange(5)
        if action == 0 and at < len(data):
            data[at] = rng.choice((rng.randrange(256), 0, 255, data[at] ^ (1 << rng.randrange(8))))
        elif action == 1:
            del data[at : at + some]
        elif action == 2:
            data[at:at] = bytes(rng.randrange(256) for _ in range(some))
        elif action == 3:
            data[at:at] = data[at : at + 10 * some]
        else:
            del data[max(1, at) :]
        if not data:
            data = bytearray(b"x")
    return bytes(data)


def spoil_value(rng, value):
    """One value somewhere in a tree of lists and dictionaries changed."""
    value = json.loads(json.dumps(value))
    here = value
    while isinstance(here, dict | list) and here:
        key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
        below = here[key]
        if not isinstance(below, dict | list) or not below or rng.random() < 0.2:
            if rng.random() < 0.15:
                del here[key]
            elif rng.random() < 0.15 and isinstance(here, list):
                here.insert(key, rng.choice(VALUES))
            else:
                here[key] = rng.choice(VALUES)
            break
        here = below
    return value


def fuzz_pickle(rng, folder):
    refs, _ = fresh()
    content = spoil_bytes(rng, pickle.dumps(refs, rng.randrange(6)))
    yield content
    if rng.random() < 0.02:  # the whole way, by a child of its own, takes a while
        path = folder / "refs.p"
        path.write_bytes(content)
        read_pickle(path)
    try:
        plain(content)
    except Exception as error:  # noqa: BLE001 - `_unpickling.main` turns all of them into a line
        raise ValueError(f"{type(error).__name__}: {error}") from None


def fuzz_json(rng, folder):
    content = spoil_bytes(rng, json.dumps(fresh()[1]).encode())
    yield content
    parse_json(content, "instances.json")


def fuzz_set(rng, folder):
    refs, instances = fresh()
    if rng.random() < 0.5:
        refs = spoil_value(rng, refs)
    else:
        instances = spoil_value(rng, instances)
    yield json.dumps([refs, instances]).encode()
    found = referring("refcoco", "val", write_set(folder, refs, instances))
    for expression in found.expressions:
        assert found.mask(expression).shape == found.pictures[expression.image_id].size
    for error in found.broken:
        shown(error)


def fuzz_region(rng, folder):
    h, w = rng.randrange(1, 40), rng.randrange(1, 40)
    if rng.random() < 0.5:
        mask = np.random.default_rng(rng.randrange(2**32)).random((h, w)) < rng.random()
        counts = cocomask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
        counts = spoil_bytes(rng, counts).decode("latin1") if rng.random() < 0.7 else [0, h * w]
        value = spoil_value(rng, {"size": [h, w], "counts": counts})
    else:
        value = spoil_value(rng, [SQUARE[0], [rng.uniform(-w, 2 * w) for _ in range(8)], CROWD])
    yield json.dumps([value, h, w]).encode()
    region = read_region(Record("f", "annotation 1", {"segmentation": value}), (h, w))
    assert region.mask().shape == (h, w)


def fuzz_image(rng, folder):
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (9, 7, 3), np.uint8)
    buffer = io.BytesIO()
    form = rng.choice(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"))
    Image.fromarray(pixels).save(buffer, form)
    content = spoil_bytes(rng, buffer.getvalue())
    yield content
    path = folder / "picture"
    path.write_bytes(content)
    assert load_image(path).shape[2] == 3


LOADERS = {
    "pickle": fuzz_pickle,
    "JSON": fuzz_json,
    "referring set": fuzz_set,
    "region": fuzz_region,
    "image": fuzz_image,
}


def shown(error):
    """A message must be one printable line."""
    text = str(error)
    assert text.isprintable() and len(text) < 2000, ascii(text[:3000])


def work(loader, seconds, seed, folder):
    """Spoil and load until the time is over; returns how many were loaded and refused."""
    # A warning is an error, but what a user is told (odd EXIF data, several pictures in a file)
    # and what pycocotools does to NumPy.
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, 4 * 2**30))
    end, tally, number = time.monotonic() + seconds, {"loaded": 0, "refused": 0}, 0
    while time.monotonic() < end:
        number += 1
        rng = random.Random(f"{seed} {number}")
        steps = loader(rng, folder)
        (folder / "current").write_bytes(next(steps))
        try:
            next(steps, None)
            tally["loaded"] += 1
        except (ValueError, OSError) as error:
            if loader is not fuzz_pickle:  # whose words are not yet those that are shown
                shown(error)
            tally["refused"] += 1
    return tally


def fuzz(name, seconds, seed, folder):
    """One loader in a process of its own; returns its tally, or ends with what it died of."""
    folder.mkdir()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            tally = work(LOADERS[name], seconds, seed, folder)
            (folder / "tally").write_text(json.dumps(tally))
            code = 0
        finally:
            sys.stderr.flush()
            if code:
                import traceback

                traceback.print_exc()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if status:
        kept = Path(tempfile.mkdtemp(prefix="fuzz-")) / "input"
        kept.write_bytes((folder / "current").read_bytes())
        died = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "an exception"
        sys.exit(f"{name}: ended by {died}; the input is kept in {kept}")
    return json.loads((folder / "tally").read_text())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120, help="of all loaders together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in LOADERS:
            seconds = options.seconds / len(LOADERS)
            tally = fuzz(name, seconds, options.seed, Path(folder, name.replace(" ", "-")))
            print(f"{name}: {tally['loaded']:,} loaded, {tally['refused']:,} refused", flush=True)


if __name__ == "__main__":
    main()
