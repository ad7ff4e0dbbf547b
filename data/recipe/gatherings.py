"""One phrase by every gathering that is tried, all of them from one pass of the UNet."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8, UInt16
from torch import Tensor

from nbhelpers.attention import Recording
from nbhelpers.calibration import RESOLUTION_WEIGHTS, Gathering, Layers, Normalize, SoftmaxOver
from nbhelpers.completion import complete
from nbhelpers.denoising import add_noise, encode_image
from nbhelpers.embeddings import Prompt
from nbhelpers.evaluation.batched import THRESHOLDS
from nbhelpers.kernels import threshold_sweep
from nbhelpers.masks import to_pixels
from nbhelpers.models import Models
from nbhelpers.scores import BLOCKS, join_maps, noun_maps
from nbhelpers.segment import attend, make_prompt, target_spans
from nbhelpers.settings import Settings

TIMESTEPS = (
    *((20,), (50,), (100,), (200,), (300,), (400,)),
    *((50, 100, 200), (100, 200, 300), (200, 300, 400), (300, 400, 500)),
)
LAYERS: tuple[Layers, ...] = ("all", "no-mid", "up")
STEPS = 2**16 - 1  # an IoU is kept as a whole number of these
Cells = Sequence[tuple[int, str]]
"""The factor and the block of each cross-attention layer."""


def simplicity(gathering: Gathering) -> tuple[int, int]:
    """Return the order in which ties are broken, simplest first.

    Example:
        >>> simplicity(Gathering((100,), None, normalize="none"))
        (1, 0)
        >>> simplicity(Gathering((100, 200), {1: 1.0}, "up"))
        (2, 3)
    """
    departures = (
        gathering.weights is not None,
        gathering.layers != "all",
        gathering.normalize != "none",
        gathering.softmax_over != "all",
    )
    return len(gathering.timesteps), sum(departures)


def candidates(cells: Cells) -> list[Gathering]:
    """List the gatherings to be tried with a UNet, simplest first; of two that are the same, one.

    Resolutions count equally, the finest two alone, each alone, and by DiffSegmenter's weights.

    Args:
        cells: Of its cross-attention layers.
    """
    factors = sorted({factor for factor, _ in cells})
    weightings = [
        *(None, dict.fromkeys(factors[:2], 1.0), *({factor: 1.0} for factor in factors)),
        RESOLUTION_WEIGHTS,
    ]
    choices = (TIMESTEPS, weightings, LAYERS, get_args(Normalize), get_args(SoftmaxOver))
    found: dict[Any, Gathering] = {}
    for gathering in sorted((Gathering(*some) for some in product(*choices)), key=simplicity):
        shares = _shares(gathering, cells)
        several = len({factor for factor, _ in shares}) > 1
        how = gathering.normalize if several else None  # one map is stretched in the end anyway
        if shares:
            key = gathering.timesteps, gathering.softmax_over, how, tuple(shares.items())
            found.setdefault(key, gathering)
    return list(found.values())


def _shares(gathering: Gathering, cells: Cells) -> dict[tuple[int, str], float]:
    """Return the share that each kind of layer's resolution has in the sum, where it has any."""
    scoring = {cell for cell in cells if _scores(gathering, *cell)}
    weights = gathering.weights or dict.fromkeys((factor for factor, _ in scoring), 1.0)
    total = sum(weights[factor] for factor in {factor for factor, _ in scoring})
    return {cell: weights[cell[0]] / total for cell in sorted(scoring)}


def _scores(gathering: Gathering, factor: int, block: str) -> bool:
    """Tell whether a layer has a say in a gathering."""
    weighted = gathering.weights is None or gathering.weights.get(factor, 0) > 0
    return weighted and block in BLOCKS[gathering.layers]


@torch.no_grad()
def search_phrase(
    image: UInt8[np.ndarray, "h w 3"],
    phrase: str,
    truth: Bool[np.ndarray, "h w"],
    models: Models,
    methods: Mapping[str, Settings],
) -> tuple[Cells, dict[str, UInt16[np.ndarray, "gathering threshold"]]]:
    """Return the IoU of one phrase by every gathering of `candidates` at each of `THRESHOLDS`.

    Returns:
        The UNet's layers, and by method the IoUs in units of 1 / `STEPS`.

    Raises:
        ValueError: No noun in the phrase, or anything that a stage refuses.
    """
    latent = encode_image(image, models)
    # The noise of a timestep is drawn by its index among the timesteps, so both tell a look.
    noised = {
        (t, index): row
        for timesteps in TIMESTEPS
        for index, (t, row) in enumerate(
            zip(timesteps, add_noise(latent, timesteps, models), strict=True)
        )
    }
    rows, timesteps = torch.stack(list(noised.values())), [t for t, _ in noised]
    cuts = torch.tensor(THRESHOLDS, dtype=torch.float32, device=models.device)
    true = torch.from_numpy(truth)[None].to(models.device)
    cells: Cells = ()
    found = {}
    for name, settings in methods.items():
        prompt = make_prompt(phrase, models, settings, image=image)
        attention = attend([rows], [prompt], timesteps, models)
        looks = {look: attention.part(k, len(noised)) for k, look in enumerate(noised)}
        cells = [(layer.factor, layer.block) for layer in attention.cross_layers]
        tried = candidates(cells)
        ious = np.zeros((len(tried), len(THRESHOLDS)), np.uint16)
        for chosen, maps in _completed(looks, prompt, settings, tried):
            pixels = torch.from_numpy(to_pixels(maps, truth.shape)).to(models.device)
            shared, either = threshold_sweep(pixels, true.expand(pixels.shape), cuts)
            values = STEPS * shared.double() / either.clamp(min=1)
            ious[chosen] = values.round().cpu().numpy()
        found[name] = ious
    return cells, found


def _completed(
    looks: Mapping[tuple[int, int], Recording],
    prompt: Prompt,
    settings: Settings,
    tried: Sequence[Gathering],
) -> Iterator[tuple[list[int], Float[Tensor, "gathering h_grid w_grid"]]]:
    """Yield the completed maps of the gatherings of each set of timesteps, and their numbers."""
    spans = target_spans(prompt)
    nouns = {
        (look, tokens): [
            noun_maps(layer, spans, tokens, settings.subtokens) for layer in seen.cross_layers
        ]
        for (look, seen), tokens in product(looks.items(), get_args(SoftmaxOver))
    }
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, gathering in enumerate(tried):
        groups[gathering.timesteps].append(number)
    for timesteps, numbers in groups.items():
        mine = [(t, index) for index, t in enumerate(timesteps)]
        layers = [layer for look in mine for layer in looks[look].cross_layers]
        size = max((layer.grid for layer in layers), key=lambda grid: grid[0] * grid[1])
        scores = []
        for gathering in (tried[number] for number in numbers):
            maps = [m for look in mine for m in nouns[look, gathering.softmax_over]]
            pairs = [
                (layer, values)
                for layer, values in zip(layers, maps, strict=True)
                if _scores(gathering, layer.factor, layer.block)
            ]
            joined = join_maps(
                *zip(*pairs, strict=True),
                weights=gathering.weights,
                normalize=gathering.normalize,
                size=size,
            )
            scores.append(joined[0])
        carrying = [layer for look in mine for layer in looks[look].self_layers]
        yield (
            numbers,
            complete(
                torch.stack(scores), carrying, transpose=settings.transpose, steps=settings.steps
            ),
        )
