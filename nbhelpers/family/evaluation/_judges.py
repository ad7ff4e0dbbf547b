"""Three judges of attribute binding: whether each thing in a picture has the color asked for.

None was used to train the UNet: CLIP's vision tower reads crops, BLIP describes the picture,
and pixels are counted by color inside of each thing's mask, which the UNet itself finds. How often
each is right on pictures whose truth is known is measured by `python -m recipe score`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from nbhelpers.captions import caption
from nbhelpers.chunks import noun_chunks
from nbhelpers.models import Models
from nbhelpers.segment import segment

CROPS = ((1.0, 1), (0.7, 3), (0.5, 3))  # the side of a crop, and how many along each axis


@dataclass(frozen=True)
class Asked:
    """A thing that a picture was to show."""

    noun: str
    color: str


class Judges:
    """The judges by name, each a function of a picture and the things asked for.

    Args:
        models: Whose CLIP, BLIP, parser and, for the masks, UNet are used.
        nouns: All nouns that CLIP is to choose from, each with its colors.
        colors: The colors in CIELAB.
    """

    def __init__(
        self,
        models: Models,
        nouns: Mapping[str, Sequence[str]],
        colors: Mapping[str, Sequence[float]],
    ) -> None:
        self.models, self.nouns, self.colors = models, nouns, colors
        self.known = list(nouns)
        self.noun_texts = self._embed_texts(self.known)
        self.color_texts = {
            noun: self._embed_texts([f"{color} {noun}" for color in own])
            for noun, own in nouns.items()
            if own
        }
        self.all = {"clip": self.clip, "blip": self.blip, "pixels": self.pixels}

    @torch.no_grad()
    def clip(self, picture: UInt8[np.ndarray, "h w 3"], asked: Sequence[Asked]) -> list[bool]:
        """Tells whether, in the crop that shows a noun best, CLIP names this noun and its color.

        The noun is to be likelier than all others, and the color than the noun's other colors.
        """
        clip = self.models.clip
        seen = clip.processor(images=crops(picture), return_tensors="pt").to(clip.device)
        crop_vectors = _unit(clip.model.get_image_features(**seen).pooler_output)
        likely = (clip.model.logit_scale.exp() * crop_vectors @ self.noun_texts.T).softmax(dim=1)
        verdicts = []
        for thing in asked:
            index = self.known.index(thing.noun)
            best = int(likely[:, index].argmax())
            color = int((crop_vectors[best] @ self.color_texts[thing.noun].T).argmax())
            is_noun = int(likely[best].argmax()) == index
            verdicts.append(is_noun and self.nouns[thing.noun][color] == thing.color)
        return verdicts

    def blip(self, picture: UInt8[np.ndarray, "h w 3"], asked: Sequence[Asked]) -> list[bool]:
        """Tells whether BLIP's caption has a phrase that ends with the noun and has its color."""
        try:
            said = noun_chunks(caption(picture, self.models.captioner), self.models.parser)
        except ValueError:  # it names nothing
            said = ()
        phrases = [f" {chunk.text.lower()}" for chunk in said]
        return [
            any(p.endswith(f" {thing.noun}") and thing.color in p.split() for p in phrases)
            for thing in asked
        ]

    def pixels(self, picture: UInt8[np.ndarray, "h w 3"], asked: Sequence[Asked]) -> list[bool]:
        """Tells whether a thing's mask holds more pixels of its color than of any other one asked.

        The masks come from prompts that name no color. A pixel in several belongs to the one
        whose map is highest, and its color is the nearest in CIELAB.
        """
        found = segment(picture, [f"the {thing.noun}" for thing in asked], self.models)
        maps = np.stack([one.map for one in found])
        masks = np.stack([one.mask for one in found])
        masks &= maps >= maps.max(axis=0)
        nearest = nearest_colors(picture, list(self.colors.values()))
        names = list(self.colors)
        verdicts = []
        for mask, thing in zip(masks, asked, strict=True):
            counts = {
                other.color: int((nearest[mask] == names.index(other.color)).sum())
                for other in asked
            }
            own = counts.pop(thing.color)
            verdicts.append(own > max(counts.values(), default=0))
        return verdicts

    @torch.no_grad()
    def _embed_texts(self, names: Sequence[str]) -> Float[Tensor, "name d"]:
        """Returns CLIP's vectors of "a photograph of a ..." of each name."""
        clip = self.models.clip
        articles = ["an" if name[0] in "aeiou" else "a" for name in names]
        texts = [f"a photograph of {a} {name}" for a, name in zip(articles, names, strict=True)]
        tokens = clip.tokenizer(texts, padding=True, return_tensors="pt").to(clip.device)
        return _unit(clip.model.get_text_features(**tokens).pooler_output)


def crops(picture: UInt8[np.ndarray, "h w 3"]) -> list[Any]:
    """Returns the whole picture, and overlapping crops of 0.7 and 0.5 of its sides."""
    height, width = picture.shape[:2]
    found = []
    for side, count in CROPS:
        h, w = round(side * height), round(side * width)
        for top in np.linspace(0, height - h, count).round().astype(int):
            for left in np.linspace(0, width - w, count).round().astype(int):
                found.append(Image.fromarray(picture[top : top + h, left : left + w]))
    return found


def nearest_colors(
    picture: UInt8[np.ndarray, "h w 3"], colors: Sequence[Sequence[float]]
) -> np.ndarray:
    """Returns the index of the color nearest to each pixel in CIELAB."""
    gaps = to_lab(picture / 255)[:, :, None] - np.asarray(colors, dtype=float)
    return np.square(gaps).sum(axis=-1).argmin(axis=-1)


def to_lab(rgb: Float[np.ndarray, "*shape 3"]) -> Float[np.ndarray, "*shape 3"]:
    """Converts sRGB in [0, 1] to CIELAB under D65 (CIE 15:2004, IEC 61966-2-1)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    ratio = linear @ to_xyz.T / to_xyz.sum(axis=1)
    curved = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * 841 / 108 + 4 / 29)
    x, y, z = np.moveaxis(curved, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
