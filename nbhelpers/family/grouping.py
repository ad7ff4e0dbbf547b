"""Patches bound to a few groups: what GroupViT's heirs ViewCo, SegCLIP and OVSegmentor share."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GROUPS = 8


class Grouping(nn.Module):
    """Groups that share out the patches among them: attention whose softmax runs over the groups.

    As in slot attention (Locatello et al., 2020, arXiv 2006.15055) and GroupViT (Xu et al., 2022,
    arXiv 2202.11094). Simplified: one head, no recurrent unit, and projections that begin as the
    identity, so that patches alike begin in one group, which is the mean of its patches.

    Args:
        width: Of patches and groups.
        hard: Whether each patch belongs to one group alone (GroupViT) or to all by shares.
    """

    def __init__(self, width: int, *, hard: bool) -> None:
        super().__init__()
        self.hard = hard
        self.groups = nn.Parameter(0.1 * torch.randn(GROUPS, width))
        self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        for part in (self.query, self.key, self.value):
            nn.init.eye_(part.weight)
            nn.init.zeros_(part.bias)

    def logits(
        self, groups: Float[Tensor, "b group width"], patches: Float[Tensor, "b patch width"]
    ) -> Float[Tensor, "b group patch"]:
        """Returns how strongly each group asks for each patch."""
        query, key = self.query(self.query_norm(groups)), self.key(self.key_norm(patches))
        return (query @ key.mT).float() / math.sqrt(groups.shape[-1])

    def forward(
        self,
        groups: Float[Tensor, "b group width"],
        patches: Float[Tensor, "b patch width"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b group width"], Float[Tensor, "b group patch"]]:
        """Returns every group with the mean of its patches added, and the shares of each patch.

        Args:
            groups: As they ask.
            patches: To be shared out.
            generator: Of Gumbel noise on hard groups in training; none is added without it.

        Returns:
            The groups, and the soft shares: each patch's sum to 1 over the groups.
        """
        logits = self.logits(groups, patches)
        shares = logits.softmax(1)
        weights = shares
        if self.hard:
            noisy = (
                shares if generator is None else (logits + gumbel(logits, generator)).softmax(1)
            )
            chosen = F.one_hot(noisy.argmax(1), logits.shape[1]).mT
            weights = (
                chosen + noisy - noisy.detach()
            )  # the choice, with the gradient of the shares
        weights = weights / weights.sum(2, keepdim=True).clamp(min=1)
        return groups + weights.to(patches) @ self.value(patches), shares


def gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws Gumbel noise of a tensor's shape on the CPU, so that every device has the same."""
    even = torch.rand(like.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    return -(-even.log()).log().to(like)


def score_groups(
    shares: Float[Tensor, "group patch"],
    groups: Float[Tensor, "group joint"],
    texts: Float[Tensor, "text joint"],
    grid: tuple[int, int],
) -> Float[Tensor, "text h_grid w_grid"]:
    """Scores each patch by each text: the cosines of its groups, by its shares in them."""
    return (texts @ groups.T @ shares).unflatten(1, grid)
