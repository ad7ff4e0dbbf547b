"""DiffuMask: a segmenter trained on generated pictures, whose masks are their attention's.

Wu, Zhao, Shou, Zhou and Shen, "DiffuMask: Synthesizing Images with Pixel-level Annotations for
Semantic Segmentation Using Diffusion Models", ICCV 2023, arXiv 2303.11681.

Kept: pictures are sampled from each class's name, a threshold makes masks of their attention,
pictures that seem wrong are left out, pictures are spliced, and a segmenter of the closed set of
classes learns from the pairs. It never sees a mask that a person drew, nor a real picture.
Simplified: a small U-Net in place of Mask2Former, for small pictures; one threshold and a band
that doesn't count in place of a network of affinities, and CLIP as the judge of which pictures
are wrong in place of a first segmenter, so that one network is trained; of its augmentations
splicing alone, which makes pictures of several things.
The pairs and the training are in `data/recipe/family_diffumask.py`.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nbhelpers.family import load_weights
from nbhelpers.models import Models

BACKGROUND = "background"
WIDTHS = (24, 48, 96)  # channels at full, half and quarter resolution


class Segmenter(nn.Module):
    """A small U-Net that gives every pixel a logit for each class.

    Args:
        names: Of the classes, without background.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.down = nn.ModuleList([_block(3, fine), _block(fine, middle), _block(middle, coarse)])
        self.up = nn.ModuleList([_block(coarse + middle, middle), _block(middle + fine, fine)])
        # By name, so that the weights say which classes they know; a dict would be sorted.
        self.heads = nn.ParameterDict(
            [(name, nn.Parameter(0.1 * torch.randn(fine + 1))) for name in (BACKGROUND, *names)]
        )

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b class h w"]:
        """Computes logits, background first, from pixels in [-1, 1]; sides are multiples of 4."""
        states = [self.down[0](pixels)]
        for block in self.down[1:]:
            states.append(block(F.max_pool2d(states[-1], 2)))
        found = states.pop()
        for block in self.up:
            larger = F.interpolate(found, scale_factor=2, mode="bilinear")
            found = block(torch.cat([larger, states.pop()], dim=1))
        heads = torch.stack(list(self.heads.values()))
        return torch.einsum("bdhw,cd->bchw", found, heads[:, 1:]) + heads[:, 0, None, None]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Makes two convolutions of one resolution."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()]
    return nn.Sequential(*layers)


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    segmenter: Segmenter | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Returns each class's probability at every pixel, among all classes that the segmenter knows.

    Args:
        image: uint8.
        texts: Names of classes.
        models: Say how large a picture the segmenter sees, and on which device.
        segmenter: The shipped one, of the sticker world's classes, when None.

    Raises:
        ValueError: No text, or a class that the segmenter doesn't know.
        OSError: There is no shipped segmenter.
    """
    network = read_segmenter(models) if segmenter is None else segmenter
    known = list(network.heads)
    unknown = [text for text in texts if text not in known[1:]]
    if unknown or not texts:
        raise ValueError(
            f"DiffuMask knows the classes it was trained on, {', '.join(known[1:4])} and "
            f"{len(known) - 4} more; got {list(texts)}"
        )
    network = network.to(models.device).eval()
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].to(models.device)
    seen = F.interpolate(pixels / 127.5 - 1, size=models.size, mode="bilinear", antialias=True)
    shares = network(seen).softmax(dim=1)[:, [known.index(text) for text in texts]]
    large = F.interpolate(shares, size=image.shape[:2], mode="bilinear")[0]
    return large.clamp(0, 1).cpu().numpy()


def read_segmenter(models: Models) -> Segmenter:
    """Returns the shipped segmenter.

    Args:
        models: Those it is used beside.

    Raises:
        OSError: It isn't there.
        ValueError: It was trained on what another UNet generated, or another CLIP chose.
    """
    weights = load_weights("diffumask", models)
    heads = [key.removeprefix("heads.") for key in weights if key.startswith("heads.")]
    segmenter = Segmenter([name for name in heads if name != BACKGROUND])
    segmenter.load_state_dict(weights)
    return segmenter
