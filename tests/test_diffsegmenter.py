"""`segment` by the method "diffsegmenter" against its arithmetic, written down here anew.

Every softmax(QK') is stored, as its code does: mean over heads and layers of each resolution,
the class word's last token, each resolution from 0 to 1, bilinear to the finest, 0.3, 0.5, 0.1
and 0.1 for the coarsest to the finest, A S once, from 0 to 1, 0.5. All in float64.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import nbhelpers as nb

PHRASE = "a striped ring"  # the small vocabulary has both words
SHARES = {8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1}


def probabilities(unet, run):
    """Every attention layer's softmax(QK'), mean over the heads, while something runs."""
    projected, handles = {}, []
    for name, module in unet.named_modules():
        if name.endswith((".to_q", ".to_k")):
            handles.append(
                module.register_forward_hook(
                    lambda module, args, out, name=name: projected.update({name: out[0].double()})
                )
            )
    run()
    for handle in handles:
        handle.remove()
    found = {}
    for name, module in unet.named_modules():
        if name.endswith(("attn1", "attn2")):
            query, key = (
                projected[f"{name}.to_{part}"].unflatten(-1, (module.heads, -1)).transpose(0, 1)
                for part in "qk"
            )
            logits = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
            found[name] = logits.softmax(dim=-1).mean(dim=0)
    return found


def stretch(x):
    return (x - x.min()) / (x.max() - x.min())


@pytest.mark.parametrize("transpose", [False, True])
def test_the_map_is_that_of_the_published_arithmetic(transpose, models_15):
    image = np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    more = {"size": (128, 128), "transpose": transpose}
    found = {}
    stored = probabilities(
        models_15.unet,
        lambda: found.update(
            one=nb.segment(image, PHRASE, models_15, method="diffsegmenter", **more)
        ),
    )
    one = found["one"]
    assert (one.settings.timesteps, one.settings.threshold) == ((100,), 0.5)
    side = 16
    token = one.prompt.spans[one.target][-1]
    score = torch.zeros(side, side, dtype=torch.float64)
    for factor, share in SHARES.items():
        cells = side // factor
        columns = [
            matrix[:, token]
            for name, matrix in stored.items()
            if name.endswith("attn2") and len(matrix) == cells**2
        ]
        mean = stretch(torch.stack(columns).mean(dim=0)).view(1, 1, cells, cells)
        score += share * F.interpolate(mean, (side, side), mode="bilinear")[0, 0]
    own = [m for name, m in stored.items() if name.endswith("attn1") and len(m) == side**2]
    assert len(own) == 5
    a = torch.stack(own).mean(dim=0)
    assert (a - a.T).abs().max() > 0.01  # so that the direction shows
    completed = ((a.T if transpose else a) @ score.flatten()).view(1, 1, side, side)
    pixels = F.interpolate(completed, (128, 128), mode="bilinear")[0, 0]
    wanted = stretch(pixels).numpy()
    assert np.abs(score.numpy() - one.score).max() < 1e-4
    assert np.abs(wanted - one.map).max() < 1e-3
    assert ((wanted >= 0.5) == one.mask).mean() > 0.999
    assert 0.02 < one.mask.mean() < 0.98
