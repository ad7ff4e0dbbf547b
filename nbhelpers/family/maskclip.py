"""MaskCLIP: CLIP's own dense features, found by leaving its last queries and keys out.

Zhou, Loy and Dai, "Extract Free Dense Labels from CLIP", ECCV 2022, arXiv 2112.01071.

Kept: the last attention layer of the vision tower passes each patch's value through the output
projection, and a patch gets the class whose text embedding is nearest by cosine.
Simplified: three prompt templates in place of 85, those that suit drawings; neither key
smoothing nor prompt denoising, the paper's two refinements, to show the one idea alone; no
MaskCLIP+, which trains a segmenter on these labels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8

from nbhelpers.family.dense import stretch_together, text_features, value_features
from nbhelpers.models import Models


def maps(
    image: UInt8[np.ndarray, "h w 3"], texts: Sequence[str], models: Models
) -> Float[np.ndarray, "text h w"]:
    """Returns how near every pixel's patch is to each text in CLIP's space.

    Args:
        image: uint8.
        texts: Names of classes or phrases.
        models: Whose `clip` is used; the UNet is not.

    Returns:
        Cosines, stretched to [0, 1] for all texts together.

    Raises:
        ValueError: No text, an empty one, or a picture of which every patch is the same.
    """
    patches = value_features([image], models.clip)[0]
    cosines = torch.einsum("td,dhw->thw", text_features(texts, models.clip), patches)
    return stretch_together(cosines, (image.shape[0], image.shape[1]))
