"""CLIP's dense features held against texts: what MaskCLIP, ReCo and OVDiff have in common."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers.models import Clip

# MaskCLIP averages 85 templates of ImageNet's; these three name the styles of the sticker world.
TEMPLATES = ("a photograph of {}", "a drawing of {}", "a picture of {}")
ARTICLES = ("a ", "an ", "the ")


def to_input(images: Sequence[UInt8[np.ndarray, "h w 3"]], clip: Clip) -> Float[Tensor, "b 3 s s"]:
    """Returns pictures as the vision tower reads them: squeezed to its size, nothing cropped."""
    side = clip.model.config.vision_config.image_size
    rows = []
    for image in images:
        pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        rows.append(F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True))
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (clip.processor.image_mean, clip.processor.image_std)
    )
    return ((torch.cat(rows) - mean) / std).to(clip.device)


@torch.no_grad()
def value_features(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], clip: Clip
) -> Float[Tensor, "image d h_patch w_patch"]:
    """Returns CLIP's embedding of every patch, its last attention layer without queries and keys.

    MaskCLIP's modification: in the last layer a patch's value goes straight to the output
    projection. The residual connections and the MLP stay.

    Returns:
        Unit vectors in the space in which pictures meet texts.
    """
    tower = clip.model.vision_model
    states = tower(pixel_values=to_input(images, clip), output_hidden_states=True).hidden_states
    layer, patches = tower.encoder.layers[-1], states[-2][:, 1:]
    values = layer.self_attn.v_proj(layer.layer_norm1(patches))
    patches = patches + layer.self_attn.out_proj(values)
    patches = patches + layer.mlp(layer.layer_norm2(patches))
    embedded = clip.model.visual_projection(tower.post_layernorm(patches))
    side = clip.model.config.vision_config.image_size // clip.model.config.vision_config.patch_size
    return F.normalize(embedded, dim=-1).transpose(1, 2).unflatten(-1, (side, side))


@torch.no_grad()
def text_features(texts: Sequence[str], clip: Clip) -> Float[Tensor, "text d"]:
    """Returns CLIP's embedding of each text: the mean over `TEMPLATES`, as unit vectors.

    Args:
        texts: Names of classes, or phrases; one without an article gets "a" or "an".
        clip: The CLIP, ``models.clip``.

    Raises:
        ValueError: No text, or an empty one.
    """
    if not texts or not all(text.strip() for text in texts):
        raise ValueError(f"texts are names of classes or phrases, at least one; got {list(texts)}")
    rows = []
    for text in texts:
        coded = clip.tokenizer(
            [template.format(with_article(text)) for template in TEMPLATES],
            padding="max_length",
            max_length=clip.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        found = clip.model.get_text_features(coded.input_ids.to(clip.device)).pooler_output
        rows.append(F.normalize(F.normalize(found, dim=-1).mean(dim=0), dim=0))
    return torch.stack(rows)


def with_article(text: str) -> str:
    """Returns a class's name or a phrase as it stands in a sentence.

    Example:
        >>> [with_article(text) for text in ("dog", "umbrella", "the red car")]
        ['a dog', 'an umbrella', 'the red car']
    """
    words = " ".join(text.split())
    if words.lower().startswith(ARTICLES):
        return words
    return f"{'an' if words[:1].lower() in {*'aeiou'} else 'a'} {words}"


def stretch_together(
    scores: Float[Tensor, "text h w"], size: tuple[int, int]
) -> Float[np.ndarray, "text height width"]:
    """Scores as large as the picture, all texts stretched to [0, 1] by one minimum and maximum.

    So the text with the highest score at a pixel stays the highest there, as in the papers, which
    let the texts compete; and the map of a single text fills [0, 1], as every map here.

    Raises:
        ValueError: All scores are equal, NaN or infinite.
    """
    pixels = F.interpolate(scores[None].float(), size=size, mode="bilinear")[0]
    low, high = pixels.min(), pixels.max()
    if not torch.isfinite(high - low) or high <= low:
        raise ValueError(
            f"the scores reach from {float(low):g} to {float(high):g}, so no pixel stands out; "
            "give another picture or other texts"
        )
    return ((pixels - low) / (high - low)).cpu().numpy()
