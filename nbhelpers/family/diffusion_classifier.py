"""Diffusion Classifier: whether a thing is in a picture at all, which a mask never says."""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from nbhelpers.datasets import Picture
from nbhelpers.denoising import add_noise, encode_image, predict_noise
from nbhelpers.embeddings import Prompt, embed
from nbhelpers.models import Models
from nbhelpers.segment import make_prompt
from nbhelpers.settings import resolve


@overload
def presence(  # type: ignore[overload-overlap]  # a str is a sequence of strings, too
    image: Picture,
    phrase: str,
    models: Models,
    *,
    timesteps: Sequence[int] = ...,
    samples: int = ...,
    seed: int = ...,
) -> float: ...


@overload
def presence(
    image: Picture,
    phrase: Sequence[str],
    models: Models,
    *,
    timesteps: Sequence[int] = ...,
    samples: int = ...,
    seed: int = ...,
) -> list[float]: ...


@torch.no_grad()
def presence(
    image: Picture,
    phrase: str | Sequence[str],
    models: Models,
    *,
    timesteps: Sequence[int] = (200, 400),
    samples: int = 4,
    seed: int = 0,
) -> float | list[float]:
    """Returns how much a phrase helps to predict the noise that was added to a picture.

    The UNet predicts the noise of one noised picture twice, with "a photograph of {phrase}" and
    with the empty prompt. Where the thing is there its name lowers the error; where it isn't, the
    name raises it. This is the diffusion classifier of Li et al. (2023, arXiv 2303.16203), with
    the empty prompt for the other class. A mask can't tell: its map is stretched before it is cut.

    Args:
        image: uint8 ``(h, w, 3)`` of any size, a Pillow picture, or a path.
        phrase: What to ask for, or several such, which share the noised pictures.
        models: From `load_models`.
        timesteps: Scheduler indices at which the picture is noised.
        samples: Noises drawn for each timestep.
        seed: Of the posterior's sample and of the noises.

    Returns:
        The fall of the squared error as a share of the empty prompt's, at most 1: above 0 where
        the phrase helps. Compare phrases of one picture, or choose a threshold on pictures of
        your own; a model's card says how well it separates what is there from what isn't. A list
        for several phrases.

    Raises:
        ValueError: No samples, or anything that `segment` refuses of a picture or phrase.

    Example:
        >>> import nbhelpers as nb
        >>> from nbhelpers.family.diffusion_classifier import presence
        >>> models = nb.load_models("stickers")
        >>> path = nb.data_folder() / "stickers" / "paper" / "figure-5.png"
        >>> there, absent = presence(path, ["a horse", "a pizza"], models)
        >>> there > absent
        True
    """
    if samples < 1:
        raise ValueError(f"presence needs one noise or more for each timestep; got {samples=}")
    phrases = [phrase] if isinstance(phrase, str) else list(phrase)
    plain = resolve(models, "plain")
    prompts = [embed("", (), models.text)]
    prompts += [make_prompt(one, models, plain) for one in phrases]
    latent = encode_image(image, models, seed=seed)
    every = [t for t in timesteps for _ in range(samples)]
    noised = add_noise(latent, every, models, seed=seed)
    kept = models.scheduler.alphas_cumprod[every].view(-1, 1, 1, 1).to(latent.device)
    noise = (noised.float() - kept.sqrt() * latent.float()) / (1 - kept).sqrt()

    def error(prompt: Prompt) -> Tensor:
        """Returns the mean squared error of the noise predicted with a prompt."""
        found = predict_noise(noised, every, [prompt], models).float()
        if models.scheduler.config.prediction_type == "v_prediction":
            found = kept.sqrt() * found + (1 - kept).sqrt() * noised.float()
        return (found - noise).square().mean()

    empty, *others = map(error, prompts)
    falls = [float(1 - other / empty) for other in others]
    return falls[0] if isinstance(phrase, str) else falls
