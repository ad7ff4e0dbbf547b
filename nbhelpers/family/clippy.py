"""CLIPpy: a CLIP whose picture vector is the maximum over its patches.

Ranasinghe, McKinzie, Ravi, Yang, Toshev and Shlens, 2022, "Perceptual Grouping in Contrastive
Vision-Language Models", arXiv 2210.09996.

Kept: the contrast of pictures and captions, in which each channel of the picture's vector is the
largest of all patches; a patch therefore answers for what the caption names, and at test time the
patches are compared with the class names one by one.

Simplified: the paper begins from self-supervised DINO and Sentence-T5; here the vision tower
begins from the sticker world's CLIP, whose text tower stays as it is, so that the systems trained
from captions begin alike.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nbhelpers.family.dense import stretch_together, text_features, to_input
from nbhelpers.family.trained import Batch, VisionTower, contrast, encode, load_trained
from nbhelpers.models import Clip, Models


class Clippy(nn.Module):
    """The vision tower, its patches pooled by their maximum.

    Attributes:
        defining: Whether the pooling is by the maximum; by the mean if not.
    """

    defining = True

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.tower = VisionTower(clip)
        self.scale = nn.Parameter(clip.logit_scale.detach().clone())

    def loss(self, batch: Batch, clip: Clip, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the contrast of a batch.

        Args:
            batch: Pictures and captions.
            clip: Whose text tower reads the captions.
            generator: Not used.
        """
        patches = self.tower(batch.pixels)
        pooled = patches.amax(1) if self.defining else patches.mean(1)
        return contrast(F.normalize(pooled, dim=-1), encode(batch.captions, clip), self.scale)


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: Clippy | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Returns the cosine of every patch with every text, all stretched to [0, 1] together.

    Args:
        image: Of any size.
        texts: Class names or phrases.
        models: Whose CLIP reads the texts.
        network: Another than the trained one.
    """
    network = network or load_trained(Clippy, "clippy", models)
    patches = network.tower(to_input([image], models.clip))[0]
    cosines = (text_features(texts, models.clip) @ patches.T).unflatten(1, network.tower.grid)
    return stretch_together(cosines, (image.shape[0], image.shape[1]))
