"""What the trained systems share: CLIP's towers, batches, the contrast with captions, weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nbhelpers.family import SYSTEMS, check_made_with, load_weights
from nbhelpers.family.dense import ARTICLES
from nbhelpers.models import Clip, Models

# The scale of CLIP's logits at the start of a training from scratch (Radford et al., 2021).
FIRST_SCALE = 1 / 0.07

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Batch:
    """Pictures with one caption each, of which the systems trained on captions learn.

    Attributes:
        pixels: In [-1, 1].
        captions: One a picture.
        nouns: The nouns in each caption, as they stand there ("dogs").
    """

    pixels: Float[Tensor, "picture 3 h w"]
    captions: Sequence[str]
    nouns: Sequence[Sequence[str]]


@dataclass(frozen=True)
class MaskBatch:
    """Pictures with the true masks of their things, of which the supervised systems learn.

    Attributes:
        pixels: In [-1, 1].
        masks: For each picture, one a thing, in [0, 1] on half the picture's grid.
        names: For each picture, what each thing may be called: ("dog", "black dog").
    """

    pixels: Float[Tensor, "picture 3 h w"]
    masks: Sequence[Float[Tensor, "_ h_half w_half"]]
    names: Sequence[Sequence[tuple[str, ...]]]

    def choose(
        self, generator: torch.Generator
    ) -> tuple[list[str], Float[Tensor, "picture h_half w_half"]]:
        """Chooses a name in each picture, as a sentence, and the mask of all that bear it."""
        sentences, chosen = [], []
        for masks, names in zip(self.masks, self.names, strict=True):
            thing = names[int(torch.randint(len(names), (), generator=generator))]
            name = thing[int(torch.randint(len(thing), (), generator=generator))]
            sentences.append(prompt_of(name))
            chosen.append(masks[[name in other for other in names]].amax(0))
        return sentences, torch.stack(chosen)


class VisionTower(nn.Module):
    """The vision tower of a CLIP, by layers, so that groups of patches can enter between them.

    Args:
        clip: A CLIP of transformers; its weights are copied.
    """

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.vision = copy.deepcopy(clip.vision_model).requires_grad_(True)
        self.projection = copy.deepcopy(clip.visual_projection).requires_grad_(True)

    @property
    def width(self) -> int:
        """The width of the tokens."""
        return int(self.vision.config.hidden_size)

    @property
    def grid(self) -> tuple[int, int]:
        """``(h, w)`` of the patches."""
        side = self.vision.config.image_size // self.vision.config.patch_size
        return side, side

    def embed(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b token width"]:
        """Embeds the tokens before the first layer: one of the whole picture, then the patches."""
        tokens: Tensor = self.vision.pre_layrnorm(self.vision.embeddings(pixels))
        return tokens

    def run(
        self, tokens: Float[Tensor, "b token width"], first: int = 0, last: int | None = None
    ) -> Float[Tensor, "b token width"]:
        """Returns the tokens after layers `first` up to `last`, which is left out."""
        for layer in self.vision.encoder.layers[first:last]:
            tokens = layer(tokens, attention_mask=None)
        return tokens

    def project(self, tokens: Float[Tensor, "*b width"]) -> Float[Tensor, "*b joint"]:
        """Returns tokens as unit vectors in the space that pictures and texts share."""
        return F.normalize(self.projection(self.vision.post_layernorm(tokens)).float(), dim=-1)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patch joint"]:
        """Returns every patch as a unit vector beside the texts."""
        return self.project(self.run(self.embed(pixels))[:, 1:])


def prompt_of(text: str) -> str:
    """Returns the sentence that asks for a class or a phrase.

    Example:
        >>> prompt_of("umbrella"), prompt_of("the dog on the left")
        ('a photograph of an umbrella', 'a photograph of the dog on the left')
    """
    vowel = text[0].lower() in "aeiou"
    article = "" if text.lower().startswith(ARTICLES) else "an " if vowel else "a "
    return f"a photograph of {article}{text}"


@torch.no_grad()
def encode(captions: Sequence[str], clip: Clip) -> Float[Tensor, "caption joint"]:
    """Returns captions as unit vectors by CLIP's own text tower, which no system here trains."""
    found = clip.model.get_text_features(token_ids(captions, clip)).pooler_output
    return F.normalize(found.float(), dim=-1)


def token_ids(captions: Sequence[str], clip: Clip) -> Tensor:
    """Returns the token ids of captions, padded to the longest."""
    limit = clip.model.config.text_config.max_position_embeddings
    ids: Tensor = clip.tokenizer(
        list(captions), padding=True, truncation=True, max_length=limit, return_tensors="pt"
    ).input_ids
    return ids.to(clip.device)


def contrast(
    pictures: Float[Tensor, "b joint"], texts: Float[Tensor, "b joint"], scale: Tensor
) -> Float[Tensor, ""]:
    """Computes CLIP's loss: each picture finds its caption in the batch, each caption its picture.

    Args:
        pictures: Unit vectors.
        texts: Unit vectors, in the same order.
        scale: The logarithm of what the cosines are multiplied by.
    """
    return match(scale.exp().clamp(max=100) * pictures @ texts.T)


def match(logits: Float[Tensor, "b b"]) -> Float[Tensor, ""]:
    """Computes the mean cross-entropy of rows and columns, the right answers on the diagonal."""
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def enlarge(
    scores: Float[Tensor, "text h_grid w_grid"], size: tuple[int, int]
) -> Float[np.ndarray, "text h w"]:
    """Scores that are shares of 1 already, as large as the picture."""
    pixels = F.interpolate(scores[None].float(), size=size, mode="bilinear")
    return pixels[0].cpu().numpy()


def load_trained(kind: type[Network], name: str, models: Models) -> Network:
    """Returns a trained system's network, with the weights that `SYSTEMS` has for it.

    Args:
        kind: Its class, made from a CLIP. Parts that serve training alone are named in its
            `training_only` and come without weights.
        name: Of the system.
        models: Whose CLIP it is made from.

    Raises:
        OSError: The weights aren't there.
        ValueError: They are of another network, or were made with another CLIP or UNet.
    """
    made: Any = kind  # to mypy a class with a type variable can't be hashed
    path = SYSTEMS[name].weights
    if path.is_file():
        check_made_with(name, models)
    network: Network = _load(made, name, path, models.clip.model)
    return network


@lru_cache(maxsize=16)
def _load(kind: Any, name: str, path: Path, clip: nn.Module) -> Any:
    network = kind(clip).to(next(clip.parameters()).device)
    missing, unknown = network.load_state_dict(load_weights(name), strict=False)
    missing = [key for key in missing if not key.startswith(getattr(kind, "training_only", ()))]
    if missing or unknown:
        raise ValueError(
            f"{path} holds another network than {kind.__name__}: {len(missing)} weights are "
            f"missing and {len(unknown)} unknown, the first {[*missing, *unknown][0]}; train it "
            f"again: python -m recipe family --systems {name}"
        )
    return network.eval().requires_grad_(False)
