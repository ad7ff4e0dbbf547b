"""The checks of the lab on noise: the clean latent, and the timestep of a noise level."""

from collections.abc import Callable

import torch
from torch import Tensor

from nblabs.checking import Round, rounds


def check_clean(
    clean: Callable[[Tensor, Tensor, Tensor], Tensor], *, seed: int | None = None
) -> None:
    """Checks ``clean(noised, predicted, kept)``: the latent that a noise prediction implies.

    Args:
        clean: Takes noised latents ``(timestep, channel, h, w)``, the noise predicted for each,
            and alphas_cumprod at each timestep, ``(timestep,)``; returns the clean latents.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from the latent that the noise was added to.
    """
    for trial in rounds(clean, seed):
        count = int(torch.randint(2, 4, (1,), generator=trial.rng))
        shape = (count, 4, 3, 5)
        latent, noise = torch.randn((2, *shape), generator=trial.rng)
        kept = 0.1 + 0.8 * torch.rand(count, generator=trial.rng)
        a = kept.view(-1, 1, 1, 1)
        noised = a.sqrt() * latent + (1 - a).sqrt() * noise
        trial.compare(
            trial.ask(noised, noise, kept),
            latent,
            {
                "divide by the latent's factor, too": noised - (1 - a).sqrt() * noise,
                "the factors are square roots": (noised - (1 - a) * noise) / a,
                "only the noise's share is taken off": (noised - noise) / a.sqrt(),
                "the noise's factor is sqrt(1 - kept)": (noised - a.sqrt() * noise) / a.sqrt(),
                "take the noise off, don't add it": ((noised + (1 - a).sqrt() * noise) / a.sqrt()),
            },
            "solve z_t = sqrt(kept) z + sqrt(1 - kept) e for z; kept has one value a timestep",
        )


def check_timestep_for(
    timestep_for: Callable[[Tensor, float], int | None], *, seed: int | None = None
) -> None:
    """Checks ``timestep_for(kept, ratio)``: the first timestep with so much noise.

    Args:
        timestep_for: Takes alphas_cumprod of all timesteps, which falls, and a ratio of the
            noise's variance to the latent's, which is 1; returns the first timestep at which the
            ratio is reached, None where it never is.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It is another one.
    """
    for trial in rounds(timestep_for, seed):
        kept = _schedule(trial)
        index = int(torch.randint(5, len(kept) - 5, (1,), generator=trial.rng))
        ratio = float((1 - kept[index]) / kept[index]) * (1 - 1e-6)
        roots = ((1 - kept).sqrt() >= ratio * kept.sqrt()).nonzero()
        inverse = (kept >= ratio * (1 - kept)).nonzero()
        trial.compare(
            trial.ask(kept, ratio),
            index,
            {
                "variances, not standard deviations: no square roots": int(roots[0])
                if len(roots)
                else -1,
                "the noise over the latent, not the other way round": int(inverse[-1])
                if len(inverse)
                else -1,
                "off by one: the first timestep that reaches it": index + 1,
                "the first timestep, not the last": len(kept) - 1,
            },
            "the noise's variance is 1 - kept, the latent's kept",
        )
        never = timestep_for(kept, float((1 - kept[-1]) / kept[-1]) * 2)
        if never is not None:
            trial.refuse(
                f"it gave {never!r} where no timestep has so much noise", "return None there"
            )


def _schedule(trial: Round) -> Tensor:
    """Returns a schedule that falls from nearly 1."""
    steps = 0.001 + 0.1 * torch.rand(60, generator=trial.rng, dtype=torch.float64)
    return (1 - steps).cumprod(0)
