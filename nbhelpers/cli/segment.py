"""``python -m nbhelpers segment``: a picture and a phrase in, a mask on disk out."""

import argparse
import hashlib
import io
import json
import math
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nbhelpers.cli import PACKAGES, say
from nbhelpers.datasets import load_image, open_regular, quoted
from nbhelpers.files import check_writable, write_together
from nbhelpers.settings import SETTINGS
from nbhelpers.versions import versions
from nbhelpers.words import check_text

METHODS = tuple(SETTINGS)
DESCRIPTION = """\
Find the pixels of a picture that a phrase means, with a picture generator that
was never shown a mask. Written into the --out folder, where NAME is made of the
picture's name and the phrase:

  NAME.mask.png      255 where the phrase's object is, 0 elsewhere
  NAME.overlay.png   the picture, all but the mask faded to gray
  NAME.json          prompt, chunk, target, settings, model, versions, scores

The masks are as large as the picture, turned upright as its EXIF data says."""
ENDING = """\
methods: what is done to the prompt's embedding before attention is read
  plain          nothing: the prompt as the text encoder gives it
  chunk          the target's noun chunk encoded by itself (the paper's Eq. 3)
  paper          chunk, and the noun mixed with no words at all (Eq. 4, alpha 0.9)
  diffsegmenter  plain, with the noun's weight raised to 1.21 and only its last
                 token read, as in the released code of DiffSegmenter
  sealed         every chunk sees itself alone, and the end of the prompt is taken
                 from an empty one, so that no phrase leaks into another

examples:
  python -m nbhelpers segment data/stickers/images/000149.png "the black horse"
  python -m nbhelpers segment street.jpg "the man in a blue shirt" --target shirt
  python -m nbhelpers segment street.jpg "a dog" --method paper --alpha 0.7 --out dogs
  python -m nbhelpers segment street.jpg "a dog" --prompt-from blip
  python -m nbhelpers segment street.jpg "a dog" --device cuda --timesteps 50 100 200 \\
      --model stable-diffusion-v1-5/stable-diffusion-v1-5
"""


def describe(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommand's arguments to its parser."""
    parser.description, parser.epilog = DESCRIPTION, ENDING
    add = parser.add_argument
    add("picture", metavar="PICTURE", help="PNG, JPEG, WebP, GIF, BMP, TIFF, PPM or AVIF")
    add("phrase", metavar="PHRASE", type=phrase, help='what to find: "the black horse"')
    add(
        "--out",
        metavar="DIR",
        default="out",
        help="folder for the results, made where it is missing (default: ./out)",
    )
    add(
        "--model",
        metavar="NAME",
        default="stickers",
        help='"stickers", which comes with the package; a folder of a Stable Diffusion in '
        'diffusers\' layout; or its "owner/name" on the Hugging Face Hub (default: stickers)',
    )
    add(
        "--revision",
        metavar="COMMIT",
        help="the 40-digit commit of a Hub model; known already for Stable Diffusion 1.5, 2.1, XL",
    )
    add(
        "--variant",
        metavar="NAME",
        help='the form that the weights were saved in, such as "fp16" (default: the only one)',
    )
    add(
        "--parser",
        metavar="NAME",
        help='the spaCy pipeline that finds the noun chunks: "stickers", which comes with the '
        "package, an installed one such as en_core_web_sm, or a folder (default: stickers)",
    )
    add("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1, mps (default: cpu)")
    add(
        "--method",
        choices=METHODS,
        default="sealed",
        help="how the prompt is prepared, see below (default: sealed)",
    )
    add(
        "--target",
        metavar="WORD",
        type=phrase,
        help="the word, or words, whose noun chunk is meant (default: what the phrase is about)",
    )
    add(
        "--caption",
        metavar="TEXT",
        type=phrase,
        help='the whole prompt, instead of "a photograph of PHRASE"',
    )
    add(
        "--prompt-from",
        choices=("phrase", "blip"),
        help='"a photograph of PHRASE" as it is, or what BLIP makes of it (default: phrase)',
    )
    add(
        "--alpha",
        metavar="W",
        type=number(0, 2),
        help="weight of the noun in [0, 2]: 1 leaves it, less weakens it towards no words at all "
        "(default: 1; paper 0.9, diffsegmenter 1.21)",
    )
    add(
        "--timesteps",
        metavar="T",
        type=timestep,
        nargs="+",
        help="how much noise to look through, one or several of 0 to 999, averaged "
        "(default: the model's own; 100 for most)",
    )
    add(
        "--threshold",
        metavar="X",
        type=number(0, 1),
        help="where the map, stretched to [0, 1], is cut (default: the model's own for each "
        "method; 0.5 for most)",
    )
    add("--seed", metavar="N", type=seed, help="of the noise; 0 or more (default: 0)")
    add("--quiet", action="store_true", help="print no progress and no result")


def run(options: argparse.Namespace) -> int:
    """Checks everything that was given, then loads the models, segments and writes."""
    started = time.perf_counter()

    def tell(stage: str) -> None:
        if not options.quiet:
            say(f"[{time.perf_counter() - started:5.1f} s] {stage}", sys.stderr)

    image, digest, notes = read(options.picture)
    folder = out_folder(options.out)
    name = result_name(options.picture, options.phrase)
    if is_taken(folder / f"{name}.json", digest, options.phrase):
        known = hashlib.sha256(f"{digest} {options.phrase}".encode()).hexdigest()
        name = f"{name}-{known[:8]}"
    files = {kind: f"{name}.{kind}" for kind in ("mask.png", "overlay.png", "json")}
    check_writable(folder, files.values())
    h, w = image.shape[:2]
    tell(f"picture {quoted(options.picture)}, {h} x {w} pixels (h x w)")
    for note in notes:
        tell(f"note: {note}")

    import torch

    from nbhelpers.figures import overlay
    from nbhelpers.models import load_models
    from nbhelpers.segment import segment

    tell(f"loading {quoted(options.model)} on {options.device}")
    before = time.perf_counter()
    with heard(notes, tell):
        models = load_models(
            options.model,
            device=options.device,
            revision=options.revision,
            variant=options.variant,
            parser=options.parser,
        )
    loading = time.perf_counter() - before
    try:
        before = time.perf_counter()
        with heard(notes, tell):
            found = segment(
                image,
                options.phrase,
                models,
                method=options.method,
                target=options.target,
                caption=options.caption,
                progress=tell,
                **chosen(options),
            )
        segmenting = time.perf_counter() - before
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"{options.device} ran out of memory on a picture of {h} x {w} pixels; give fewer "
            "--timesteps, or use --device cpu"
        ) from error
    record = {
        **found.record(),
        "picture": {"path": str(options.picture), "sha256": digest, "size": [h, w]},
        "device": str(models.device),
        "dtype": str(models.dtype).removeprefix("torch."),
        "versions": versions(PACKAGES),
        "seconds": {"load": round(loading, 3), "segment": round(segmenting, 3)},
        "files": files,
        "notes": notes,
    }
    contents = {
        files["mask.png"]: png(found.mask.astype(np.uint8) * 255),
        files["overlay.png"]: png(overlay(image, found.mask)),
        files["json"]: (json.dumps(record, indent=2, allow_nan=False) + "\n").encode("ascii"),
    }
    tell("writing")
    paths = write_together(folder, contents)
    tell(f"done: loading took {loading:.1f} s, the picture {segmenting:.1f} s")
    if not options.quiet:
        share = f"{found.mask.mean():.1%} of the picture"
        say(f"{quoted(found.chunk.text)} in {quoted(found.caption)}: {share}", sys.stdout)
        for path in paths:
            say(str(path), sys.stdout)
    return 0


@contextmanager
def heard(notes: list[str], tell: Callable[[str], None]) -> Iterator[None]:
    """Tells the warnings of a block as notes, and adds them to `notes`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    told = [str(w.message) for w in caught if w.category is UserWarning]
    for note in told:
        tell(f"note: {note}")
    notes += told


def read(path: str) -> tuple[np.ndarray, str, list[str]]:
    """Returns the picture, its file's SHA-256, and what is to be said about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image = load_image(path)
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return image, digest, [str(warning.message) for warning in caught]


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the settings that were given; the others stay the method's and the model's."""
    names = ("alpha", "timesteps", "threshold", "seed", "prompt_from")
    given = {name: getattr(options, name) for name in names}
    if given["timesteps"]:
        given["timesteps"] = tuple(given["timesteps"])
    return {name: value for name, value in given.items() if value is not None}


def out_folder(text: str) -> Path:
    """Returns the folder for the results."""
    if not text or "\0" in text:
        raise ValueError(f"{quoted(text)} can't be a folder's name; give --out a folder")
    return Path(text)


def result_name(picture: str, words: str) -> str:
    """Names the results: by the picture and the phrase, so that each phrase has its own.

    Example:
        >>> result_name("photos/000017.png", "The black, white horse!")
        '000017-the-black-white-horse'
    """
    stem = "".join(c if c.isprintable() else "_" for c in Path(picture).stem)
    phrase = "-".join(re.findall(r"\w+", words.lower()))
    short = [
        part.encode()[:size].decode(errors="ignore") for part, size in ((stem, 120), (phrase, 60))
    ]
    return "-".join(part.rstrip("-") for part in short)


def is_taken(path: Path, digest: str, words: str) -> bool:
    """Tells whether a name holds another picture's or phrase's results, which must not be lost."""
    try:
        known = json.loads(path.read_bytes())
        return (known["picture"]["sha256"], known["phrase"]) != (digest, " ".join(words.split()))
    except (OSError, ValueError, LookupError, TypeError):
        return False  # nothing of ours lies there


def png(pixels: np.ndarray) -> bytes:
    """Returns the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def phrase(text: str) -> str:
    """Words that the English parser and CLIP could know, as `segment` checks them again."""
    try:
        return check_text(text, "text")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def number(low: float, high: float) -> Callable[[str], float]:
    """Returns a reader of numbers in a range."""

    def read_number(text: str) -> float:
        """Returns the number, if it is one and in range."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"wanted a number from {low:g} to {high:g}; got {quoted(text)}"
            )
        return value

    return read_number


def timestep(text: str) -> int:
    """Returns a timestep of the scheduler."""
    if not (text.isascii() and text.isdigit()) or int(text[:9]) > 999:
        raise argparse.ArgumentTypeError(
            f"wanted whole numbers from 0 to 999, after PICTURE and PHRASE; got {quoted(text)}"
        )
    return int(text)


def seed(text: str) -> int:
    """Returns a seed for torch's generators."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise argparse.ArgumentTypeError(
            f"wanted a whole number of 0 or more, of up to 18 digits; got {quoted(text)}"
        )
    return int(text)
