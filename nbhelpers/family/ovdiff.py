"""OVDiff: prototypes from generated pictures, to which the pixels of a given one are compared.

Karazija, Laina, Vedaldi and Rupprecht, "Diffusion Models for Open-Vocabulary Segmentation",
ECCV 2024, arXiv 2306.09316.

Kept: pictures sampled from the class's name, whose attention parts foreground from background;
prototypes that are the foreground's mean in each picture and in all, and centers of both sides; a
pixel's score, its highest cosine with those of the class against that with those of backgrounds.
Simplified: features are the keys of the UNet's self-attention, where the paper joins several
networks, and no segmenter refines the foreground, so that one model is enough.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from nbhelpers.attention import record_attention
from nbhelpers.denoising import denoise_once
from nbhelpers.embeddings import embed
from nbhelpers.family import load_weights
from nbhelpers.family.sampling import sample_support
from nbhelpers.models import Models

TIMESTEP, PARTS = 200, 4  # of the noise; clusters of foreground and of background
FOREGROUND, BACKGROUND = 0.5, 0.2  # a cell with a map from the one, or up to the other, counts


@dataclass(frozen=True)
class Prototypes:
    """The features of a class and of what is around it, as unit vectors."""

    foreground: Float[Tensor, "prototype d"]
    background: Float[Tensor, "part d"]


def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    prototypes: Mapping[str, Prototypes] | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Returns how much nearer every pixel is to a class than to any background.

    Args:
        image: uint8.
        texts: Names of classes.
        models: Whose UNet gives the features.
        prototypes: By text, from `make_prototypes`; the shipped ones of the stickers when None.

    Returns:
        ``(1 + class - background) / 2`` of the highest cosines: the paper's decision is at 0.5.

    Raises:
        ValueError: No text, or one without prototypes.
        OSError: There are no shipped prototypes.
    """
    known = read_prototypes(models) if prototypes is None else prototypes
    if not texts or set(texts) - known.keys():
        raise ValueError(
            f"texts are names with prototypes, such as {', '.join(list(known)[:3])}; got "
            f"{list(texts)}. Make others with make_prototypes and give them as prototypes="
        )
    features = pixel_features(image, models)
    flat = features.flatten(1)
    near = torch.stack([(known[text].foreground.to(flat) @ flat).amax(dim=0) for text in texts])
    around = torch.cat([known[text].background for text in texts]).to(flat) @ flat
    scores = ((1 + near - around.amax(dim=0)) / 2).clamp(0, 1).unflatten(1, features.shape[1:])
    return F.interpolate(scores[None], size=image.shape[:2], mode="bilinear")[0].cpu().numpy()


def make_prototypes(
    name: str, models: Models, *, pictures: int = 16, seed: int = 0, steps: int = 20
) -> Prototypes:
    """Returns the prototypes of a class, from generated pictures alone.

    Args:
        name: Of the class.
        models: Samples the pictures, and reads them.
        pictures: How many.
        seed: Of the first picture; the next has the next seed.
        steps: Of denoising.

    Raises:
        ValueError: There is no picture, no foreground or no background.
    """
    inside, outside = [], []
    for image, mask in sample_support(name, models, pictures=pictures, seed=seed, steps=steps):
        features = pixel_features(image, models)
        shown = torch.from_numpy(mask)[None].to(features.device)
        small = F.adaptive_avg_pool2d(shown, features.shape[1:])[0]
        inside.append(features[:, small >= FOREGROUND].T)
        outside.append(features[:, small <= BACKGROUND].T)
    inside = [own for own in inside if len(own)]
    if not inside or not any(map(len, outside)):
        raise ValueError(f"{pictures} pictures of {name!r} show no foreground or no background")
    own = torch.cat(inside)
    means = torch.stack([part.mean(dim=0) for part in (*inside, own)])
    foreground = torch.cat([means, centers(own, PARTS)])
    background = centers(torch.cat(outside), PARTS)
    return Prototypes(F.normalize(foreground, dim=-1), F.normalize(background, dim=-1))


def pixel_features(
    image: UInt8[np.ndarray, "h w 3"], models: Models
) -> Float[Tensor, "d h_grid w_grid"]:
    """Returns unit vectors on the finest grid: the self-attention's keys on the UNet's way up."""
    with record_attention(models.unet, "up") as attention:
        denoise_once(image, embed("", (), models.text), models, timestep=TIMESTEP)
    grid = max((x.grid for x in attention.self_layers), key=lambda grid: grid[0] * grid[1])
    rows = []
    for layer in attention.self_layers:
        keys = layer.key[0].transpose(1, 2).flatten(0, 1).float()  # the heads below each other
        row = F.normalize(keys, dim=0).unflatten(1, layer.grid)
        rows.append(F.interpolate(row[None], size=grid, mode="bilinear")[0])
    return F.normalize(torch.cat(rows), dim=0)


def centers(points: Float[Tensor, "n d"], count: int, rounds: int = 10) -> Float[Tensor, "k d"]:
    """Returns the centers of at most so many clusters: k-means, from points that lie far apart."""
    found = points.mean(dim=0, keepdim=True)
    for _ in range(min(count, len(points))):
        far = torch.cdist(points, found).amin(dim=1).argmax()
        found = torch.cat([found, points[far][None]])
    found = found[1:]
    for _ in range(rounds):
        member = F.one_hot(torch.cdist(points, found).argmin(dim=1), len(found)).to(points)
        sizes = member.sum(dim=0)[:, None]
        found = torch.where(sizes > 0, member.T @ points / sizes.clamp(min=1), found)
    return found


def read_prototypes(models: Models) -> dict[str, Prototypes]:
    """Returns the shipped prototypes, by class.

    Args:
        models: Those they are used with.

    Raises:
        OSError: They aren't there.
        ValueError: They were made with another UNet.
    """
    weights, sides = load_weights("ovdiff", models), ("foreground", "background")
    names = dict.fromkeys(key.rpartition(".")[0] for key in weights)
    return {name: Prototypes(*(weights[f"{name}.{side}"] for side in sides)) for name in names}
