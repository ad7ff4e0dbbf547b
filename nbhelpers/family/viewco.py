"""ViewCo: a GroupViT whose groups are to be the same in two views of a picture.

Ren, Li, Wang, Wu, Dong, Wang and others, 2023, "ViewCo: Discovering Text-Supervised Segmentation
Masks via Multi-View Semantic Consistency", arXiv 2302.10307.

Kept: group tokens run beside the patches and then share them out, each patch to one; the caption
is contrasted with two views of the picture; and the groups of one view are to be those of the
other, as a slowly following teacher sees it. Trained from scratch, the text tower too.

Simplified: one stage of grouping in place of two, since a picture has few patches; the views are
crops of one picture, and a group's fellow in the other view is the one most like it, since a crop
moves what it shows.
"""

import copy
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nbhelpers.family.dense import stretch_together, to_input
from nbhelpers.family.grouping import GROUPS, Grouping, score_groups
from nbhelpers.family.trained import (
    FIRST_SCALE,
    Batch,
    VisionTower,
    contrast,
    load_trained,
    prompt_of,
    token_ids,
)
from nbhelpers.models import Clip, Models

MOMENTUM = 0.99  # of the teacher
TEMPERATURE = 0.1  # of the groups' contrast
SIDES = (0.7, 1.0)  # of a view, as a share of the picture's
LAYERS, TEXT_LAYERS = 3, 1


class Student(nn.Module):
    """A vision transformer with group tokens, and the grouping after it."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.tower = VisionTower(clip)
        self.grouping = Grouping(self.tower.width, hard=True)

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"], generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b group joint"], Float[Tensor, "b group patch"]]:
        """Returns the groups as unit vectors, and each patch's shares in them."""
        tokens = self.tower.embed(pixels)
        groups = self.grouping.groups.expand(len(tokens), -1, -1).to(tokens)
        tokens = self.tower.run(torch.cat([groups, tokens], 1))
        found, shares = self.grouping(tokens[:, :GROUPS], tokens[:, GROUPS + 1 :], generator)
        return self.tower.project(found), shares


class ViewCo(nn.Module):
    """The student, its teacher and the text tower, none of them trained before.

    Attributes:
        defining: Whether there are two views; one, and no consistency, if not.

    Args:
        clip: Whose configuration is taken, with fewer layers; not its weights.
    """

    defining = True
    training_only = ("teacher",)

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        config = copy.deepcopy(clip.config)
        config.vision_config.num_hidden_layers = LAYERS
        config.text_config.num_hidden_layers = TEXT_LAYERS
        config.text_config.intermediate_size = 2 * config.text_config.hidden_size
        new = type(clip)(config)
        new.set_attn_implementation("eager")  # the fused one's backward is slower on a CPU
        self.student = Student(new)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.text, self.projection = new.text_model, new.text_projection
        self.scale = nn.Parameter(torch.tensor(FIRST_SCALE).log())

    def encode(self, captions: Sequence[str], clip: Clip) -> Float[Tensor, "caption joint"]:
        """Encodes captions as unit vectors, by CLIP's tokenizer and this network's text tower."""
        pooled = self.text(input_ids=token_ids(captions, clip)).pooler_output
        return F.normalize(self.projection(pooled).float(), dim=-1)

    @torch.no_grad()
    def follow(self) -> None:
        """Moves the teacher a little toward the student."""
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.lerp_(new, 1 - MOMENTUM)

    def loss(self, batch: Batch, clip: Clip, generator: torch.Generator) -> Float[Tensor, ""]:
        """Computes the contrast of caption and views, and of the views' groups with each other."""
        texts = self.encode(batch.captions, clip)
        views = [crop(batch.pixels, generator) for _ in range(2 if self.defining else 1)]
        found = [self.student(view, generator)[0] for view in views]
        pooled = [F.normalize(groups.mean(1), dim=-1) for groups in found]
        named = [contrast(view, texts, self.scale) for view in pooled]
        if not self.defining:
            return named[0]
        self.follow()
        with torch.no_grad():
            taught = [self.teacher(view)[0] for view in views]
        alike = [agree(found[0], taught[1]), agree(found[1], taught[0])]
        return torch.stack([*named, *alike]).mean()


def agree(
    groups: Float[Tensor, "b group joint"], taught: Float[Tensor, "b group joint"]
) -> Float[Tensor, ""]:
    """Returns how well each group is told from the rest by its fellow among the teacher's."""
    cosines = groups @ taught.mT
    return F.cross_entropy((cosines / TEMPERATURE).flatten(0, 1), cosines.argmax(2).flatten())


def crop(pixels: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Tensor:
    """Returns a part of each picture, as large again."""
    low, high = SIDES
    side = low + (high - low) * torch.rand(len(pixels), 1, generator=generator)
    middle = (1 - side) * (2 * torch.rand(len(pixels), 2, generator=generator) - 1)
    theta = torch.cat([torch.diag_embed(side.expand(-1, 2)), middle[:, :, None]], 2).to(pixels)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: ViewCo | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Scores by the cosine of a patch's groups with a text; arguments as in `clippy.maps`."""
    network = network or load_trained(ViewCo, "viewco", models)
    groups, shares = network.student(to_input([image], models.clip))
    asked = network.encode([prompt_of(text) for text in texts], models.clip)
    scores = score_groups(shares[0], groups[0], asked, network.student.tower.grid)
    return stretch_together(scores, (image.shape[0], image.shape[1]))
