"""OVSegmentor: groups that must be able to fill in what a caption leaves out.

Xu, Hou, Zhang, Feng, Wang, Qiao and Xie, 2023, "Learning Open-vocabulary Semantic Segmentation
Models From Natural Language Supervision", arXiv 2301.09121.

Kept: slots bind the patches of a pretrained vision transformer by attention that runs over the
slots; their mean is contrasted with the caption. Two proxy tasks: from the slots and a caption
without one of its nouns, that noun is found (masked entity completion); and of two pictures whose
captions share a noun, each one's slot of it marks the same patches as the other's
(cross-image mask consistency).

Simplified: the paper begins from DINO and BERT; here from the sticker world's CLIP, whose text
tower stays as it is, so that systems begin alike. A masked noun is left out of the sentence, since
that tower knows no mask; what was read of the rest attends to the slots, once.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from nbhelpers.family.dense import stretch_together, text_features, to_input
from nbhelpers.family.grouping import Grouping, score_groups
from nbhelpers.family.trained import Batch, VisionTower, contrast, encode, load_trained, prompt_of
from nbhelpers.models import Clip, Models

ROUNDS = 2  # of binding
EPSILON = 1e-6


class OVSegmentor(nn.Module):
    """CLIP's vision tower with slots behind it.

    Attributes:
        defining: Whether the proxy tasks count.
    """

    defining = True
    training_only = ("complete.",)

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.tower = VisionTower(clip)
        self.grouping = Grouping(self.tower.width, hard=False)
        self.scale = nn.Parameter(clip.logit_scale.detach().clone())
        joint = clip.config.projection_dim
        parts = ("query", "key", "value")
        self.complete = nn.ModuleDict({part: nn.Linear(joint, joint) for part in parts})

    def bind(
        self, pixels: Float[Tensor, "b 3 h w"]
    ) -> tuple[
        Float[Tensor, "b group width"],
        Float[Tensor, "b patch width"],
        Float[Tensor, "b group patch"],
    ]:
        """Returns the slots, the patches and each patch's shares in the slots."""
        patches = self.tower.run(self.tower.embed(pixels))[:, 1:]
        groups = self.grouping.groups.expand(len(patches), -1, -1).to(patches)
        for _ in range(ROUNDS):
            groups, shares = self.grouping(groups, patches)
        return groups, patches, shares

    def loss(self, batch: Batch, clip: Clip, generator: torch.Generator) -> Float[Tensor, ""]:
        """Returns the contrast with the captions and the two proxy tasks.

        Args:
            batch: Pictures, captions and the captions' nouns.
            clip: Whose text tower reads the captions.
            generator: Says which noun of a caption is left out.
        """
        groups, patches, shares = self.bind(batch.pixels)
        slots = self.tower.project(groups)
        texts = encode(batch.captions, clip)
        named = contrast(F.normalize(slots.mean(1), dim=-1), texts, self.scale)
        if not self.defining:
            return named
        luck = torch.rand(len(batch.nouns), generator=generator).tolist()
        asked = [own[int(x * len(own))] for own, x in zip(batch.nouns, luck, strict=True)]
        pairs = zip(batch.captions, asked, strict=True)
        rest = encode([re.sub(rf"\b{noun}\b", "", text, count=1) for text, noun in pairs], clip)
        kinds = sorted(set(asked))
        entities = encode([prompt_of(noun) for noun in kinds], clip)
        number = torch.tensor([kinds.index(noun) for noun in asked], device=texts.device)
        found = self.fill_in(slots, rest)
        completed = F.cross_entropy(self.scale.exp().clamp(max=100) * found @ entities.T, number)
        best = torch.einsum("bgc,bc->bg", slots, entities[number]).argmax(1)
        return named + completed + self.consistency(groups, patches, shares, best, number)

    def fill_in(
        self, slots: Float[Tensor, "b group joint"], rest: Float[Tensor, "b joint"]
    ) -> Float[Tensor, "b joint"]:
        """Returns what the rest of a caption finds in the slots, as a unit vector."""
        query, key = self.complete["query"](rest[:, None]), self.complete["key"](slots)
        weights = (query @ key.mT / math.sqrt(rest.shape[1])).softmax(2)
        found = (weights @ self.complete["value"](slots))[:, 0]
        return F.normalize((found + (weights.to(slots) @ slots)[:, 0]).float(), dim=-1)

    def consistency(
        self,
        groups: Float[Tensor, "b group width"],
        patches: Float[Tensor, "b patch width"],
        shares: Float[Tensor, "b group patch"],
        best: Int[Tensor, " b"],
        number: Int[Tensor, " b"],
    ) -> Float[Tensor, ""]:
        """Returns how far the mask that another picture's slot draws is from the own slot's mask.

        Args:
            groups: The slots of every picture.
            patches: Its patches.
            shares: The patches' shares in the slots.
            best: The slot that is nearest to the picture's noun.
            number: Which noun that is; pictures of the same number are paired in turn.
        """
        fellows = torch.arange(len(number), device=number.device)
        for kind in number.unique():
            own = (number == kind).nonzero()[:, 0]
            fellows[own] = own.roll(1)
        rows = torch.arange(len(number), device=number.device)
        mine = (shares.argmax(1) == best[:, None]).float()
        swapped = groups.clone()
        swapped[rows, best] = groups[fellows, best[fellows]]
        drawn = self.grouping.logits(swapped, patches).softmax(1)[rows, best].clamp(EPSILON, 1)
        with torch.autocast(drawn.device.type, enabled=False):  # CUDA's refuses this loss
            error = F.binary_cross_entropy(drawn.float(), mine, reduction="none").mean(1)
        paired = fellows != rows
        return (error * paired).sum() / paired.sum().clamp(min=1)


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: OVSegmentor | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Returns the cosine of every patch's slots with every text; arguments as in `clippy.maps`."""
    network = network or load_trained(OVSegmentor, "ovsegmentor", models)
    groups, _, shares = network.bind(to_input([image], models.clip))
    asked = text_features(texts, models.clip)
    scores = score_groups(shares[0], network.tower.project(groups)[0], asked, network.tower.grid)
    return stretch_together(scores, (image.shape[0], image.shape[1]))
