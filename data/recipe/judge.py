"""A judge of generated pictures: a small network that saw true pictures alone, apart from CLIP.

It says which nouns are in a picture, and which pairs of noun and color. Neither the UNet nor any
other model of the world learns from it, and its weights come from a seed of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from recipe.art import COLORS_OF, NOUNS
from recipe.clip import HELD_OUT
from recipe.pictures import to_unit
from recipe.scenes import Scene, draw, sample_scene
from recipe.training import fit, half_precision

SEED = 7
# What a thing can be: a noun in a color, or a noun that keeps its own.
PAIRS: tuple[tuple[str, str | None], ...] = tuple(
    (noun, color) for noun in NOUNS for color in COLORS_OF.get(noun, (None,))
)


class Judge(nn.Module):
    """Five strided convolutions, the mean over the last grid, one logit a noun and one a pair."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 96, 128, 160)
        blocks: list[nn.Module] = []
        for last, width in pairwise(widths):
            blocks += [
                nn.Conv2d(last, width, 3, 2, 1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, 1, 1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
        self.trunk = nn.Sequential(*blocks)
        self.nouns = nn.Linear(2 * widths[-1], len(NOUNS))
        self.pairs = nn.Linear(2 * widths[-1], len(PAIRS))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of `NOUNS` and of `PAIRS` for pictures in [-1, 1]."""
        grid = self.trunk(pictures)
        seen = torch.cat([grid.mean((2, 3)), grid.amax((2, 3))], 1)
        return self.nouns(seen), self.pairs(seen)


def answers(scene: Scene) -> tuple[Tensor, Tensor]:
    """Return what is true of a scene, as the judge is asked: 0 or 1 a noun and a pair."""
    nouns, pairs = torch.zeros(len(NOUNS)), torch.zeros(len(PAIRS))
    for thing in scene.things:
        nouns[NOUNS.index(thing.noun)] = 1
        pairs[PAIRS.index((thing.noun, thing.color))] = 1
    return nouns, pairs


def train_judge(
    folder: Path, *, steps: int, device: str, batch: int = 64, progress: bool = True
) -> Judge:
    """Train the judge on scenes drawn anew for every step, from `SEED`."""
    torch.manual_seed(SEED)
    judge = Judge().to(device)
    kind = torch.device(device).type

    def loss(step: int, generator: torch.Generator) -> Tensor:
        scenes = [
            sample_scene(np.random.default_rng((SEED, step, number))) for number in range(batch)
        ]
        seen = to_unit(np.stack([draw(scene)[0] for scene in scenes])).to(device)
        seen = seen + 0.05 * torch.randn(seen.shape, generator=generator).to(device)
        truth = [torch.stack(part).to(device) for part in zip(*map(answers, scenes), strict=True)]
        with half_precision(kind):
            guesses = judge(seen)
        return sum(
            nn.functional.binary_cross_entropy_with_logits(guess.float(), right) * right.shape[1]
            for guess, right in zip(guesses, truth, strict=True)
        )

    fit(
        "judge",
        loss,
        parameters=judge.parameters(),
        kept={"judge": judge},
        folder=folder,
        steps=steps,
        rate=2e-3,
        seed=SEED,
        weight_decay=0.05,
        watch=lambda step: accuracy(judge, count=50 if step < 500 else 300),
        watch_every=500,
        progress=progress,
    )
    return judge.eval()


@torch.no_grad()
def verdicts(
    judge: Judge, pictures: np.ndarray, asked: Sequence[Sequence[tuple[str, str | None]]]
) -> dict[str, np.ndarray]:
    """Return, for each picture, whether all nouns asked for are seen, and all of their pairs.

    Of a picture asked to show k things, the k best nouns and the k best pairs count.

    Args:
        judge: a trained judge.
        pictures: uint8 ``(count, h, w, 3)``.
        asked: the (noun, color) of each thing that a picture was to show.
    """
    found: dict[str, list[bool]] = {"noun": [], "both": []}
    for start in range(0, len(pictures), 100):
        seen = to_unit(pictures[start : start + 100]).to(next(judge.parameters()).device)
        nouns, pairs = (part.float().cpu() for part in judge.eval()(seen))
        for noun, pair, wanted in zip(nouns, pairs, asked[start : start + 100], strict=True):
            kinds = {n for n, _ in wanted}
            best = {NOUNS[i] for i in noun.topk(len(kinds)).indices.tolist()}
            things = {PAIRS[i] for i in pair.topk(len(set(wanted))).indices.tolist()}
            found["noun"].append(best == kinds)
            found["both"].append(things == set(wanted))
    judge.train()
    return {key: np.array(value) for key, value in found.items()}


def accuracy(judge: Judge, *, count: int = 1000) -> dict[str, float]:
    """Return the shares of right verdicts on held-out true pictures of one and of two things."""
    shares = {}
    for things, number in (("one", 1), ("two", 2)):
        scenes = [
            sample_scene(np.random.default_rng((HELD_OUT + 1, number, i)), count=number)
            for i in range(count)
        ]
        pictures = np.stack([draw(scene)[0] for scene in scenes])
        asked = [[(thing.noun, thing.color) for thing in scene.things] for scene in scenes]
        for part, right in verdicts(judge, pictures, asked).items():
            shares[f"{things}, {part}"] = float(right.mean())
    return shares
