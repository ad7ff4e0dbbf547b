"""ODISE: masks and names from a frozen text-to-image model's features; trained on true masks.

Xu, Liu, Vahdat, Byeon, Wang and De Mello, 2023, "Open-Vocabulary Panoptic Segmentation with
Text-to-Image Diffusion Models", arXiv 2303.04803.

A ceiling for this family, not a rival: it learned from the masks of freshly drawn scenes.

Kept: one pass of the frozen UNet over the picture at t = 0, its prompt made from the picture
itself by an implicit captioner (CLIP's vector through a small network, trained through the UNet);
queries read the UNet's features, draw a mask each, and are named by their cosine with texts.

Simplified: the features are what `record_attention` keeps, the queries of the upward
self-attention; two layers of attention stand for Mask2Former; queries are matched to things
greedily; a sigmoid for each text stands in place of a softmax over the classes, so that a map
doesn't depend on what else is asked; CLIP's own vote on the masks is left out.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from nbhelpers.attention import record_attention
from nbhelpers.family.dense import text_features, to_input
from nbhelpers.family.trained import MaskBatch, encode, enlarge, load_trained, prompt_of
from nbhelpers.models import Models

UNET_WIDTHS = (192, 128, 64)  # of the sticker world's UNet, on its way up
WIDTH, QUERIES, LAYERS, TOKENS = 96, 10, 2, 4


class Odise(nn.Module):
    """The implicit captioner, and the queries over the UNet's features.

    Attributes:
        defining: Whether the prompt is of the picture; one prompt is learned for all if not.
    """

    defining = True

    def __init__(self, clip: nn.Module, unet_widths: Sequence[int] = UNET_WIDTHS) -> None:
        super().__init__()
        joint, width = clip.config.projection_dim, clip.config.text_config.hidden_size
        self.caption = nn.Sequential(
            nn.Linear(joint, 2 * joint), nn.GELU(), nn.Linear(2 * joint, TOKENS * width)
        )
        self.lateral = nn.ModuleList([nn.Conv2d(channels, WIDTH, 1) for channels in unet_widths])
        self.merge, self.detail = (nn.Conv2d(WIDTH, WIDTH, 3, 1, 1) for _ in range(2))
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH))
        form = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        layer = nn.TransformerDecoderLayer(WIDTH, 4, 2 * WIDTH, **form)
        self.decoder = nn.TransformerDecoder(layer, LAYERS, nn.LayerNorm(WIDTH))
        self.draw, self.name = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, joint)
        self.slope = nn.Parameter(torch.tensor(10.0))
        self.offset = nn.Parameter(torch.tensor(-5.0))

    def features(
        self, pixels: Float[Tensor, "b 3 h w"], models: Models
    ) -> list[Float[Tensor, "b _ _ _"]]:
        """Computes the UNet's features at t = 0, coarsest first; gradients reach the captioner."""
        with torch.no_grad():
            latent = models.vae.encode(pixels.to(models.vae.dtype)).latent_dist.mean
            latent = latent * models.vae.config.scaling_factor
            seen = models.clip.model.get_image_features(pixels).pooler_output.float()
        prompt = self.caption(self.defining * F.normalize(seen)).unflatten(1, (TOKENS, -1))
        with record_attention(models.unet, "up", with_gradient=True) as attention:
            models.unet(latent.to(models.dtype), 0, encoder_hidden_states=prompt.to(models.dtype))
        heads = {layer.grid: layer.query for layer in attention.self_layers}  # the last of a grid
        return [q.mT.flatten(1, 2).unflatten(2, grid).float() for grid, q in heads.items()]

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"], models: Models
    ) -> tuple[Float[Tensor, "b query gh gw"], Float[Tensor, "b query joint"]]:
        """Returns the logits of each query's mask, and what names it as a unit vector."""
        features = self.features(pixels, models)
        levels = [part(grid) for part, grid in zip(self.lateral, features, strict=True)]
        size = levels[-1].shape[2:]
        grid = torch.stack([F.interpolate(level, size=size) for level in levels]).sum(0)
        grid = grid + self.merge(F.gelu(grid))
        queries = self.decoder(self.queries.expand(len(grid), -1, -1), grid.flatten(2).mT)
        fine = self.detail(F.interpolate(F.gelu(grid), scale_factor=2, mode="bilinear"))
        masks = torch.einsum("bqc,bchw->bqhw", self.draw(queries), fine).float() / WIDTH**0.5
        return masks, F.normalize(self.name(queries).float(), dim=-1)

    def naming(
        self, vectors: Float[Tensor, "b query joint"], texts: Float[Tensor, "text joint"]
    ) -> Float[Tensor, "b query text"]:
        """Returns the logit that a query bears a name."""
        return self.slope * vectors @ texts.T + self.offset

    def loss(
        self, batch: MaskBatch, models: Models, generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Computes the loss of masks and names, each thing matched to a query, without chance."""
        masks, vectors = self(batch.pixels, models)
        texts = sorted({name for names in batch.names for own in names for name in own})
        logits = self.naming(vectors, encode([prompt_of(text) for text in texts], models.clip))
        target, drawn, things = torch.zeros_like(logits), [], 0
        for row, (truth, names) in enumerate(zip(batch.masks, batch.names, strict=True)):
            named = torch.tensor([[text in own for text in texts] for own in names]).to(logits)
            apart = mask_loss(masks[row][:, None], truth[None])
            cost = apart.detach() - (logits[row].detach().sigmoid() @ named.T) / named.sum(1)
            for query, thing in assign(cost):
                target[row, query] = named[thing]
                drawn.append(apart[query, thing])
            things += len(names)
        naming = F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / things
        return torch.stack(drawn).mean() + naming


def mask_loss(
    logits: Float[Tensor, "*b h w"], truth: Float[Tensor, "*c h w"]
) -> Float[Tensor, "*d"]:
    """Computes five times the cross-entropy and five times the dice loss of masks, per pixel."""
    logits, truth = torch.broadcast_tensors(logits, truth)
    error = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean((-2, -1))
    found = logits.sigmoid()
    shared = 2 * (found * truth).sum((-2, -1)) + 1
    return 5 * error + 5 * (1 - shared / (found.sum((-2, -1)) + truth.sum((-2, -1)) + 1))


def assign(cost: Float[Tensor, "query thing"]) -> list[tuple[int, int]]:
    """Returns pairs of query and thing, the cheapest first, each used once."""
    cost, pairs = cost.clone(), []
    for _ in range(cost.shape[1]):
        query, thing = divmod(int(cost.argmin()), cost.shape[1])
        pairs.append((query, thing))
        cost[query], cost[:, thing] = torch.inf, torch.inf
    return pairs


@torch.no_grad()
def maps(
    image: UInt8[np.ndarray, "h w 3"],
    texts: Sequence[str],
    models: Models,
    *,
    network: Odise | None = None,
) -> Float[np.ndarray, "text h w"]:
    """Scores by the largest product of a query's mask and name; arguments as in `clippy.maps`."""
    network = network or load_trained(Odise, "odise", models)
    masks, vectors = network(to_input([image], models.clip), models)
    named = network.naming(vectors, text_features(texts, models.clip)).sigmoid()[0]
    best = (named.T[:, :, None, None] * masks[0].sigmoid()).amax(1)
    return enlarge(best, (image.shape[0], image.shape[1]))
