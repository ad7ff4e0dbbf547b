"""Prompt-to-Prompt: the source stays its own picture, and each edit is the paper's formula."""

import pytest
import torch
import torch.nn.functional as F

from nbhelpers.attention import Layer, record_attention
from nbhelpers.denoising import predict_noise
from nbhelpers.embeddings import embed
from nbhelpers.family import prompt_to_prompt
from nbhelpers.family._alignment import align, inject
from nbhelpers.family._editing import edit_attention
from nbhelpers.family.prompt_to_prompt import blend_mask, edit_prompt, generate
from nbhelpers.family.sampling import sample

RING, RED, MOON = "a ring near the dog", "a red ring near the dog", "a moon near the dog"


def plain(models, source, edited, steps=3):
    return sample([source, edited], models, seeds=[5, 5], steps=steps)


@pytest.mark.parametrize("edited", [RED, MOON])
@pytest.mark.parametrize("blend", [None, ("dog", "dog")])
def test_the_source_is_bit_equal_to_plain_generation(models_15, edited, blend):
    found = edit_prompt(RING, edited, models_15, seed=5, steps=3, blend=blend)
    alone = plain(models_15, RING, edited)
    assert torch.equal(found[0], alone[0])
    assert not torch.allclose(found[1], alone[1], atol=1e-2)


def test_a_weight_of_1_changes_nothing_and_others_do(models_15):
    alone = plain(models_15, RING, RING)
    same = edit_prompt(RING, RING, models_15, seed=5, steps=3, weights={"ring": 1.0})
    assert torch.equal(same, alone)
    more = edit_prompt(RING, RING, models_15, seed=5, steps=3, weights={"ring": 3.0})
    assert torch.equal(more[0], alone[0])
    assert not torch.allclose(more[1], alone[1], atol=1e-2)


def test_without_any_share_the_edited_picture_is_plain(models_15):
    found = edit_prompt(RING, MOON, models_15, seed=5, steps=3, cross_share=0, self_share=0)
    assert torch.equal(found, plain(models_15, RING, MOON))


def test_generated_pictures_are_the_edited_ones(models_15):
    how = {"seeds": [5, 6], "steps": 2}
    found = generate([RED, MOON], models_15, sources=[RING, RED], **how)
    for row, source, text, seed in zip(found, [RING, RED], [RED, MOON], [5, 6], strict=True):
        assert torch.equal(row, edit_prompt(source, text, models_15, seed=seed, steps=2)[1])


def test_local_blend_leaves_the_outside_bit_equal(models_15, monkeypatch):
    masks = []
    blended = prompt_to_prompt.blend_mask
    monkeypatch.setattr(
        prompt_to_prompt,
        "blend_mask",
        lambda *args: masks.append(blended(*args)) or masks[-1],
    )
    source, edited = edit_prompt(
        RING, MOON, models_15, seed=5, steps=3, blend=("ring", "moon"), threshold=0.8
    )
    inside = masks[-1]
    assert len(masks) == 3 and 0 < inside.sum() < inside.numel()
    assert torch.equal(source[:, ~inside], edited[:, ~inside])
    assert (source != edited)[:, inside].any(dim=0).all()


def test_the_mask_of_local_blend():
    maps = torch.zeros(2, 4, 4)
    maps[0, 0, 0], maps[0, 3, 3], maps[1, 0, 3] = 1.0, 0.2, 5.0
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[:2, :2] = wanted[:2, 2:] = True
    assert torch.equal(blend_mask(maps, (4, 4), 0.3), wanted)
    assert blend_mask(maps, (4, 4), 0.1)[3, 3]


@pytest.mark.parametrize(
    ("source", "edited", "weights"),
    [(RING, MOON, {"dog": 2.0}), (RING, RED, {"red": -1.0}), (RED, RING, {}), (RING, RING, {})],
)
def test_what_is_injected_is_the_papers_formula(models_15, source, edited, weights):
    """softmax(QK) of both formed in float64, columns moved one by one, each multiplied."""
    length, chance = models_15.text.length, torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, n, 8, generator=chance) * 2 for n in (12, length, length)
    )
    layer = Layer("x", "cross", "mid", query, key, (3, 4), 1, 0.3)
    found = inject(layer, value, align(source, edited, models_15, weights=weights))
    maps = (query.double() @ key.double().transpose(2, 3) * 0.3).softmax(-1)
    source_map, own_map = maps[:1], maps[1:]
    before = ["<s>", *source.split(), *["</s>"] * length]
    after = ["<s>", *edited.split(), *["</s>"] * length]
    column = torch.zeros_like(own_map)
    swapped = {"moon": "ring"}
    for j in range(length):
        name = after[j] if after[j] in before else swapped.get(after[j])
        origin = before.index(name) if name else None
        if name == "</s>":
            origin = min(before.index(name) + j - after.index(name), length - 1)
        moved = own_map[..., j] if origin is None else source_map[..., origin]
        column[..., j] = moved * weights.get(after[j], 1.0)
    wanted = column @ value[1:].double()
    assert (found - wanted).abs().max() < 1e-5 < wanted.abs().max() / 8


def test_a_swapped_word_of_other_length_keeps_the_attention_whole(models_15):
    alignment = align("the ring", "the xyz", models_15)  # three letters, three tokens
    assert alignment.taken[2, :6].tolist() == [0, 0, *[pytest.approx(1 / 3)] * 3, 0]
    assert alignment.taken.sum(dim=1)[:4].tolist() == [pytest.approx(1.0)] * 4
    assert not alignment.own.any()


def test_words_that_are_not_there_are_refused(models_15):
    with pytest.raises(ValueError, match="'cat' is no word of the prompt 'a ring near the dog'"):
        edit_prompt(RING, RING, models_15, seed=0, weights={"cat": 2.0})
    with pytest.raises(ValueError, match="'ring' is no word of the prompt 'a moon"):
        edit_prompt(RING, MOON, models_15, seed=0, blend=("ring", "ring"))


def test_edited_attention_is_put_back(any_of_all):
    models = any_of_all
    prompts = [embed(RING, (), models.text)]
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    before = dict(models.unet.attn_processors)
    alone = predict_noise(latents, [500], prompts, models)
    seen = []

    def stock(layer, value):
        seen.append(layer)
        return F.scaled_dot_product_attention(layer.query, layer.key, value)

    with edit_attention(models.unet, stock), record_attention(models.unet) as attention:
        assert torch.equal(predict_noise(latents, [500], prompts, models), alone)
    for edited, recorded in zip(seen, attention.layers, strict=True):
        assert (edited.name, edited.kind, edited.block) == (
            recorded.name,
            recorded.kind,
            recorded.block,
        )
        assert (edited.grid, edited.factor) == (recorded.grid, recorded.factor)
        assert torch.equal(edited.key, recorded.key)
    with edit_attention(models.unet, lambda layer, value: torch.zeros_like(layer.query)):
        assert not torch.allclose(predict_noise(latents, [500], prompts, models), alone)
    with (
        pytest.raises(ZeroDivisionError),
        edit_attention(models.unet, lambda layer, value: value / (1 // 0)),
    ):
        predict_noise(latents, [500], prompts, models)
    assert models.unet.attn_processors == before
    hooks = [len(module._forward_pre_hooks) for module in models.unet.modules()]
    assert not any(hooks)


@pytest.fixture(params=["models_15", "models_21", "models_xl"])
def any_of_all(request):
    return request.getfixturevalue(request.param)


def test_attention_that_does_more_is_refused(models_15, monkeypatch):
    attn = models_15.unet.mid_block.attentions[0].transformer_blocks[0].attn1
    monkeypatch.setattr(attn, "residual_connection", True)
    with (
        pytest.raises(ValueError, match=r"mid_block.*attn1 rescales its output"),
        edit_attention(models_15.unet, lambda layer, value: value),
    ):
        pass
