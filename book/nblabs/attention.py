"""The checks of the lab on attention: shares among words, the weighted sum, hooks that go."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nbhelpers import kernels
from nblabs.checking import Round, rounds


def check_over_words(
    over_words: Callable[[Tensor, tuple[int, ...]], Tensor], *, seed: int | None = None
) -> None:
    """Checks ``over_words(P, words)``: probabilities over all tokens as those over some.

    Args:
        over_words: Takes probabilities ``(head, n, token)`` and the positions of the words;
            returns the probabilities of a softmax over these positions alone, the mean over
            heads: ``(n, word)``.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `kernels.columns` over the words.
    """
    for trial in rounds(over_words, seed):
        query = 2 * torch.randn((3, 12, 8), generator=trial.rng)
        key = 2 * torch.randn((3, 9, 8), generator=trial.rng)
        first = int(torch.randint(1, 3, (1,), generator=trial.rng))
        words, scale = tuple(range(first, first + 4)), 8**-0.5
        found = kernels.columns(query[None], key[None], words, scale, words)[0]
        P = (scale * query @ key.mT).softmax(dim=-1)
        chosen = P[..., list(words)]
        trial.compare(
            trial.ask(P, words),
            found.mean(dim=0),
            {
                "those are the shares among all tokens: divide by the words' sum": chosen.mean(0),
                "divide in each head, and take the mean after that": (
                    chosen.mean(0) / chosen.mean(0).sum(-1, keepdim=True)
                ),
                "P is a softmax already: dividing is enough": chosen.softmax(-1).mean(0),
                "each location's shares sum to 1, not each word's": (
                    (chosen / chosen.sum(-2, keepdim=True)).mean(0)
                ),
                "the mean over heads, not their sum": (chosen / chosen.sum(-1, keepdim=True)).sum(
                    0
                ),
                "the words' columns alone": (P / chosen.sum(-1, keepdim=True)).mean(0),
            },
            "in each head divide the words' columns by their sum, then take the mean over heads",
        )


def check_add_up(
    add_up: Callable[[list[Tensor], list[float], tuple[int, int]], Tensor],
    *,
    seed: int | None = None,
) -> None:
    """Checks ``add_up(maps, weights, size)``: a token's maps of several resolutions as one.

    Args:
        add_up: Takes one map ``(h, w)`` a resolution, a weight for each, and the size ``(h, w)``
            of the result; each map is stretched to [0, 1], enlarged by bilinear interpolation
            (``align_corners=False``), and added with its weight, scaled so that they sum to 1.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: It differs from `kernels.aggregate`.
    """
    size = (8, 12)
    for trial in rounds(add_up, seed):
        maps = [_map(trial, 2, 3), _map(trial, 4, 6), _map(trial, 8, 12)]
        weights = (0.2 + torch.rand(3, generator=trial.rng)).tolist()
        total = sum(weights)
        wanted = kernels.aggregate([m[None] for m in maps], [w / total for w in weights], size)[0]
        shares = [w / total for w in weights]

        def joined(
            parts: Sequence[Tensor], shares: Sequence[float], stretch: bool = True
        ) -> Tensor:
            """Returns the maps enlarged and added, each stretched if asked for."""
            parts = [_stretch(part) for part in parts] if stretch else parts
            large = [_enlarge(part, size) for part in parts]
            return torch.stack([w * part for w, part in zip(shares, large, strict=True)]).sum(0)

        late = torch.stack(
            [w * _stretch(_enlarge(m, size)) for w, m in zip(shares, maps, strict=True)]
        ).sum(0)
        nearest = torch.stack(
            [
                w * F.interpolate(_stretch(m)[None, None], size=size)[0, 0]
                for w, m in zip(shares, maps, strict=True)
            ]
        ).sum(0)
        trial.compare(
            trial.ask(maps, weights, size),
            wanted,
            {
                "(w, h) for (h, w): size is (h, w), rows first": _swapped(maps, shares, size),
                "scale the weights, so that they sum to 1": joined(maps, weights),
                "stretch each map to [0, 1] first, or the brightest rules": joined(
                    maps, shares, stretch=False
                ),
                "stretch each map by itself, not their sum": _stretch(
                    joined(maps, shares, stretch=False)
                ),
                "stretch on the map's own grid, then enlarge": late,
                "enlarge by bilinear interpolation, mode='bilinear'": nearest,
                "each map has a weight of its own": joined(maps, [1 / 3] * 3),
            },
            "for each map: stretch, enlarge to size, times weight / sum of weights; then add",
        )


def check_listen(
    listen: Callable[[nn.Module, Callable[[], object]], Any], *, seed: int | None = None
) -> None:
    """Checks ``listen(module, run)``: what a module gave while something ran.

    Args:
        listen: Takes a module and a function of no arguments; calls ``run()`` and returns the
            outputs of the module meanwhile, in order. Whatever happens, no hook stays.
        seed: Of the first inputs; fresh ones each time when None.

    Raises:
        Wrong: Outputs are missing, a hook stayed, or the module was changed.
    """
    for trial in rounds(listen, seed, count=2):
        module = nn.Linear(4, 3)
        inputs = torch.randn((3, 2, 4), generator=trial.rng)
        with torch.no_grad():
            wanted = [module(x) for x in inputs]

        def run(inputs: Tensor = inputs, module: nn.Module = module) -> None:
            """Makes three calls."""
            with torch.no_grad():
                for x in inputs:
                    module(x)

        def fail(run: Callable[[], None] = run) -> None:
            """Makes three calls, and then a mistake."""
            run()
            raise OSError("out of paper")

        heard = _through(trial, module, run)
        if isinstance(heard, Tensor) or len(heard) != 3:
            trial.refuse(
                f"the module was called 3 times and {_count(heard)} came back",
                "append every output to a list and return the list",
            )
        trial.compare(
            torch.stack(list(heard)),
            torch.stack(wanted),
            hint="a forward hook is called with (module, inputs, output); keep the output",
        )
        try:
            _through(trial, module, fail)
        except OSError:
            pass
        else:
            trial.refuse("it kept an error for itself", "let errors through: no `except`")
        _untouched(trial, module, "remove the hook in `finally`: it stayed after an error")


def _through(trial: Round, module: nn.Module, run: Callable[[], object]) -> Any:
    """Returns what the function heard, asked with the module itself and not with a copy of it."""
    try:
        heard = trial.function(module, run)
    except NotImplementedError:
        trial.ask(module, run)  # says that it isn't written yet
        raise
    if heard is None:
        trial.refuse("it returned None", "end with `return`; what is printed isn't read")
    _untouched(trial, module, "remove the hook: call .remove() on what registering returned")
    return heard


def _untouched(trial: Round, module: nn.Module, hint: str) -> None:
    """Checks that the module is as it was."""
    if "forward" in vars(module):
        trial.refuse(
            "it replaced the module's forward", "register_forward_hook listens and changes nothing"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        trial.refuse("a hook stayed on the module", hint)


def _count(heard: Any) -> str:
    return "one tensor" if isinstance(heard, Tensor) else str(len(heard))


def _map(trial: Round, h: int, w: int) -> Tensor:
    """Returns a map of any range, which doesn't begin at 0."""
    level, range_ = torch.rand(2, generator=trial.rng).tolist()
    return 0.1 + level + (0.2 + range_) * torch.rand((h, w), generator=trial.rng)


def _stretch(heat: Tensor) -> Tensor:
    return (heat - heat.min()) / (heat.max() - heat.min())


def _enlarge(heat: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def _swapped(maps: Sequence[Tensor], shares: Sequence[float], size: tuple[int, int]) -> Tensor:
    """Returns the map of who takes the width for the height."""
    large = [_enlarge(_stretch(m), (size[1], size[0])) for m in maps]
    return torch.stack([w * m for w, m in zip(shares, large, strict=True)]).sum(0)
