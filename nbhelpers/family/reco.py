"""ReCo: what the pictures that a name retrieves have in common, found again in a given one.

Shin, Xie and Albanie, "ReCo: Retrieve and Co-segment for Zero-shot Transfer", NeurIPS 2022,
arXiv 2206.07045.

Kept: CLIP retrieves an archive for each class from unlabeled pictures; in each of them the patch
that the others support best is a seed, and the mean of the seeds the class's reference; what
other pictures have as well is context and suppressed; the map is the cosine with the reference,
times CLIP's own dense map.
Simplified: the features are those of the same CLIP before its last layer, where the paper has a
second vision network, so that one model is enough; the context is what a random archive shows,
where the paper names five kinds of background that drawn scenes don't have; no refinement by a
conditional random field, since no other system here has one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers.family import load_weights, maskclip
from nbhelpers.family.dense import stretch_together, to_input
from nbhelpers.models import Clip, Models


def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    references: Mapping[str, Float[Tensor, " d"]] | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Returns how near every pixel is to each class's reference, times how near CLIP says it is.

    Args:
        image: uint8.
        texts: Names of classes.
        models: Whose `clip` is used; the UNet is not.
        references: By text, from `cosegment`; the shipped ones, of the sticker world's classes
            and CLIP, when None.

    Returns:
        The product of two maps, of which each is stretched to [0, 1] for all texts together.

    Raises:
        ValueError: No text, or one without a reference.
        OSError: There are no shipped references.
    """
    known = load_weights("reco", models) if references is None else references
    if not texts or set(texts) - known.keys():
        raise ValueError(
            f"texts are names with references, such as {', '.join(list(known)[:3])}; got "
            f"{list(texts)}. Make others with cosegment and give them as references="
        )
    patches = patch_features([image], models.clip)[0]
    wanted = torch.stack([known[text] for text in texts]).to(patches)
    cosines = torch.einsum("td,dhw->thw", F.normalize(wanted, dim=-1), patches)
    found = stretch_together(cosines, (image.shape[0], image.shape[1]))
    return found * maskclip.maps(image, texts, models)


@torch.no_grad()
def patch_features(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], clip: Clip
) -> Float[Tensor, "image d h_patch w_patch"]:
    """Returns the patches' states before the last layer of CLIP's vision tower, at unit length."""
    tower = clip.model.vision_model
    states = tower(pixel_values=to_input(images, clip), output_hidden_states=True).hidden_states
    patches = F.normalize(states[-2][:, 1:], dim=-1).transpose(1, 2)
    side = clip.model.config.vision_config.image_size // clip.model.config.vision_config.patch_size
    return patches.unflatten(-1, (side, side))


@torch.no_grad()
def retrieve(
    texts: Float[Tensor, "text d"],
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
    clip: Clip,
    count: int,
) -> list[list[int]]:
    """Returns the numbers of the pictures that are nearest to each text by CLIP's own embedding.

    Args:
        texts: From `text_features`.
        pictures: Without labels.
        clip: The CLIP, ``models.clip``.
        count: How many a text.
    """
    rows = []
    for start in range(0, len(pictures), 64):
        pixels = to_input(pictures[start : start + 64], clip)
        rows.append(clip.model.get_image_features(pixels).pooler_output)
    scores = texts @ F.normalize(torch.cat(rows), dim=-1).T
    return scores.topk(count, dim=1).indices.tolist()


def cosegment(
    archive: Float[Tensor, "picture d h w"], context: Float[Tensor, "other d h w"]
) -> Float[Tensor, " d"]:
    """Returns what the pictures of an archive have in common, and others have not.

    A patch's support is the mean over the other pictures of its best cosine with any patch
    there; that from the context is taken off. The patch with the most is a picture's seed.

    Args:
        archive: The features of the pictures that a class's name retrieved, at least two.
        context: Those of pictures at random.

    Returns:
        The mean of the seeds, as a unit vector.

    Raises:
        ValueError: Fewer than two pictures, or no context.
    """
    if len(archive) < 2 or not len(context):
        raise ValueError(
            "an archive has at least two pictures and a context one; got "
            f"{len(archive)} and {len(context)}"
        )
    own, other = archive.flatten(2), context.flatten(2)
    # Its own picture adds 1 to the support of every patch alike, so that no seed moves.
    best = torch.einsum("idu,jdv->iujv", own, own).amax(dim=3)
    around = torch.einsum("idu,jdv->iujv", own, other).amax(dim=3).mean(dim=2)
    seeds = (best.sum(dim=2) / (len(own) - 1) - around).argmax(dim=1)
    return F.normalize(own[torch.arange(len(own)), :, seeds].mean(dim=0), dim=0)
