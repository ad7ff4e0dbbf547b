"""Structured Diffusion Guidance: one key, and a value for each noun phrase.

Feng, He, Fu, Jampani, Akula, Narayana, Basu, Wang and Wang, "Training-Free Structured Diffusion
Guidance for Compositional Text-to-Image Synthesis" (2022, arXiv 2212.05032).

Each noun phrase is encoded alone and put at its positions in the prompt's embedding. Every
cross-attention layer computes ``1 / (k + 1) sum_i A V_i``, where A comes from the prompt itself
and V_i from the i-th of these embeddings, the prompt's own among them.

Kept: that sum, in every layer and step. Simplified: the noun phrases are spaCy's base phrases, not
those of a constituency tree, which are nested. And no layer is changed: attention and the
projection to values are linear in the embedding, so the mean of the outputs is the output of the
mean embedding.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nbhelpers.embeddings import Prompt, embed
from nbhelpers.family.sampling import GUIDANCE, sample
from nbhelpers.family.words import find_things
from nbhelpers.models import Models


def generate(
    prompts: Sequence[str],
    models: Models,
    *,
    seeds: Sequence[int],
    steps: int = 30,
    guidance: float = GUIDANCE,
) -> Float[Tensor, "picture channel h_latent w_latent"]:
    """Returns latents from `structured_prompt` of each text; arguments as for `sample`."""
    structured = [structured_prompt(text, models) for text in prompts]
    return sample(structured, models, seeds=seeds, steps=steps, guidance=guidance)


def structured_prompt(text: str, models: Models) -> Prompt:
    """Returns the prompt with plain keys, and the mean of its noun phrases' embeddings as values.

    Args:
        text: The prompt. Noun phrases of one word have no structure and are left out.
        models: Whose parser and text encoder are used.

    Returns:
        A prompt for `sample`. Score maps are softmax(QK), so in the first layer, which has seen
        no value yet, they are those of the plain prompt.

    Raises:
        ValueError: The prompt names nothing.
    """
    chunks = [thing.chunk for thing in find_things(text, models) if " " in thing.chunk.text]
    plain = embed(text, chunks, models.text, isolate="none")
    alone = [embed(text, [chunk], models.text, isolate="every").keys for chunk in chunks]
    return replace(plain, values=torch.stack([plain.keys, *alone]).mean(dim=0))
