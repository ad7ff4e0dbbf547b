"""The training loop, the tokenizer and the models of the shapes world before they are trained."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from nbhelpers.models import load_models
from nbhelpers.shapes import recipe
from nbhelpers.shapes.__main__ import parse
from nbhelpers.shapes.autoencoder import encode_all, train_autoencoder
from nbhelpers.shapes.captioner import (
    EYE_PATCH,
    new_captioner,
    new_word_tokenizer,
    save_captioner,
    shifted,
    start_from_clip,
)
from nbhelpers.shapes.clip import contrastive_loss, new_clip, text_encoder, tokenize
from nbhelpers.shapes.pictures import draw_pictures, to_unit
from nbhelpers.shapes.tokenizer import TOKENS, train_tokenizer
from nbhelpers.shapes.training import Average, cosine, fit, half
from nbhelpers.shapes.unet import new_scheduler, new_unet, sample_latents


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_pictures(tmp_path_factory.mktemp("pictures"), count=40, seed=0, progress=False)


@pytest.fixture(scope="module")
def tokenizer(pictures, tmp_path_factory):
    texts = pictures.texts("ordinary")
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"))


def _train(folder, steps, seen, *, stop_at=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    average = Average(model, decay=0.9)

    def take_step(step, generator):
        if step == stop_at:
            raise KeyboardInterrupt
        batch = torch.randn(8, 3, generator=generator)
        seen.append(batch.sum().item())
        return (model(batch) - batch.sum(1, keepdim=True)).square().mean()

    fit(
        "line",
        take_step,
        parameters=model.parameters(),
        kept={"model": model, "average": average},
        folder=folder,
        steps=steps,
        rate=0.05,
        seed=7,
        after_step=lambda step: average.update(model, step),
        save_every_seconds=0,
        progress=False,
    )
    return model, average


def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(tmp_path):
    whole, average = _train(tmp_path / "whole", 30, [])
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "broken", 30, [], stop_at=11)
    seen = []
    resumed, again = _train(tmp_path / "broken", 30, seen)
    assert len(seen) == 30 - 11
    assert torch.equal(whole.weight, resumed.weight)
    assert all(map(torch.equal, average.shadow, again.shadow))


def test_a_finished_part_is_not_trained_again(tmp_path):
    first, _ = _train(tmp_path, 10, [])
    seen = []
    second, _ = _train(tmp_path, 10, seen)
    assert not seen
    assert torch.equal(first.weight, second.weight)


def test_the_log_tells_step_loss_and_seconds(tmp_path):
    _train(tmp_path, 60, [])
    lines = [json.loads(line) for line in (tmp_path / "line.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 60]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "seconds" in lines[0]


def test_the_rate_warms_up_and_falls_to_zero():
    assert cosine(0, 1000, warmup=10) == pytest.approx(0.1)
    assert cosine(10, 1000, warmup=10) == 1
    assert cosine(505, 1000, warmup=10) == pytest.approx(0.5, abs=0.01)
    assert cosine(1000, 1000, warmup=10) == pytest.approx(0)


def test_pictures_are_drawn_once_and_other_ones_are_refused(pictures, tmp_path):
    first = draw_pictures(tmp_path, count=3, seed=1, progress=False)
    again = draw_pictures(tmp_path, count=3, seed=1, progress=False)
    assert (first.pictures == again.pictures).all()
    assert first.captions == again.captions
    with pytest.raises(ValueError, match="3 pictures of seed 1, but 3 of seed 2"):
        draw_pictures(tmp_path, count=3, seed=2, progress=False)


def test_a_batch_pairs_pictures_with_their_own_captions(pictures):
    seen, captions, index = pictures.batch(torch.Generator().manual_seed(0), 12)
    assert seen.shape == (12, 3, 80, 80)
    assert seen.min() >= -1
    assert seen.max() <= 1
    for number, text in zip(index.tolist(), captions, strict=True):
        assert text in pictures.captions["ordinary"][number]
    _, careful, same = pictures.batch(torch.Generator().manual_seed(0), 12, "careful")
    assert (same == index).all()
    for number, text in zip(index.tolist(), careful, strict=True):
        assert text in pictures.captions["careful"][number]


def test_the_end_token_has_the_largest_id_and_pads(tokenizer):
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert tokenizer.bos_token_id == len(tokenizer) - 2
    (ids,) = tokenize(tokenizer, ["a red ring"]).tolist()
    assert len(ids) == TOKENS
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[ids.index(tokenizer.eos_token_id) :]) == {tokenizer.eos_token_id}


def test_the_tokenizer_reads_any_text(tokenizer):
    ids = tokenizer("Café zebra 🦓").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "café zebra 🦓"


def test_the_pooled_vector_is_taken_at_the_end_token(tokenizer):
    torch.manual_seed(0)
    encoder = text_encoder(new_clip(tokenizer))
    ids = tokenize(tokenizer, ["a red ring", "a blue moon and a striped yellow house"])
    with torch.no_grad():
        output = encoder(ids)
    for row, states, pooled in zip(
        ids, output.last_hidden_state, output.pooler_output, strict=True
    ):
        end = row.tolist().index(tokenizer.eos_token_id)
        assert torch.equal(states[end], pooled)


def test_the_text_encoder_says_what_the_clip_says(tokenizer):
    torch.manual_seed(0)
    clip = new_clip(tokenizer).eval()
    ids = tokenize(tokenizer, ["a red ring"])
    with torch.no_grad():
        whole = clip.text_model(ids).last_hidden_state
        assert torch.equal(text_encoder(clip)(ids).last_hidden_state, whole)


def test_the_contrastive_loss_is_the_mean_of_two_cross_entropies():
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    rows = [np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits.numpy())]
    columns = [np.log(np.exp(c).sum()) - c[i] for i, c in enumerate(logits.numpy().T)]
    wanted = (np.mean(rows) + np.mean(columns)) / 2
    assert contrastive_loss(logits).item() == pytest.approx(wanted)


def test_latents_are_sampled_from_the_posterior_and_scaled():
    mean, variance = torch.full((1, 4, 50, 50), 3.0), torch.full((1, 4, 50, 50), np.log(0.25))
    stacked = torch.cat([mean, variance.float()], 1).half()
    latents = sample_latents(stacked, 2.0, torch.Generator().manual_seed(0))
    assert latents.mean().item() == pytest.approx(6.0, abs=0.05)
    assert latents.std().item() == pytest.approx(1.0, abs=0.05)


def test_the_unet_reads_text_at_each_resolution_and_the_noise_is_stable_diffusions():
    unet = new_unet()
    cross = [name for name, _ in unet.named_modules() if name.endswith("attn2.to_k")]
    assert len(cross) == 7
    alphas = new_scheduler().alphas_cumprod
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    assert alphas[100].item() == pytest.approx(np.prod(1 - betas[:101]), rel=1e-4)


def test_half_keeps_values_to_half_precision(tmp_path):
    from safetensors.torch import load_file, save_file

    weights = {"a": torch.randn(20), "steps": torch.arange(3)}
    save_file(weights, tmp_path / "model.safetensors")
    half(tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found["a"].dtype == torch.float16
    assert found["steps"].dtype == torch.int64
    assert torch.equal(found["a"], weights["a"].half())


def test_a_captioner_is_saved_in_blips_own_format(pictures, tmp_path):
    from transformers import BlipForConditionalGeneration, BlipProcessor

    texts = pictures.texts("ordinary")
    words = new_word_tokenizer(texts, tmp_path / "words")
    torch.manual_seed(0)
    save_captioner(new_captioner(words), words, tmp_path / "blip")
    processor, blip = (
        kind.from_pretrained(
            tmp_path / "blip", revision=None, use_safetensors=True, trust_remote_code=False
        )
        for kind in (BlipProcessor, BlipForConditionalGeneration)
    )
    inputs = processor(images=pictures.pictures[0], text="a red ring", return_tensors="pt")
    written = blip.generate(**inputs, max_new_tokens=3)[0]
    assert processor.decode(written, skip_special_tokens=True).startswith("a red ring")
    assert blip.config.text_config.bos_token_id == words.convert_tokens_to_ids("[DEC]")


def test_blip_begins_with_what_clip_sees(pictures, tokenizer, tmp_path):
    """BLIP has no layer norm before its first layer; folded in, each token's own deviation
    differs a little from the mean one, so the two agree closely and not exactly."""
    torch.manual_seed(0)
    clip = new_clip(tokenizer, patch=EYE_PATCH).eval()
    with torch.no_grad():
        for part in (clip.vision_model.pre_layrnorm.weight, clip.vision_model.pre_layrnorm.bias):
            part.add_(0.3 * torch.randn(len(part)))
    words = new_word_tokenizer(pictures.texts("careful"), tmp_path / "words")
    blip = new_captioner(words).eval()
    seen = to_unit(pictures.pictures[:16])

    def likeness():
        with torch.no_grad():
            ours = blip.vision_model(seen).last_hidden_state
            theirs = clip.vision_model(seen).last_hidden_state
            theirs = clip.vision_model.post_layernorm(theirs)
        return nn.functional.cosine_similarity(ours, theirs, dim=-1).mean().item()

    assert abs(likeness()) < 0.5
    start_from_clip(blip, clip, seen)
    assert likeness() > 0.9


def test_a_shifted_picture_is_itself_moved():
    seen = torch.arange(2 * 3 * 20 * 20, dtype=torch.float32).view(2, 3, 20, 20)
    moved = shifted(seen, torch.Generator().manual_seed(1), most=3)
    corners = []
    for before, after in zip(seen, moved, strict=True):
        # what stands in the middle tells where it came from
        y, x = divmod(int(after[0, 10, 10] - before[0, 0, 0]), 20)
        corners.append((y - 10, x - 10))
        rows = torch.arange(20).add(y - 10).clamp(0, 19)
        columns = torch.arange(20).add(x - 10).clamp(0, 19)
        assert torch.equal(after, before[:, rows][:, :, columns])
    assert corners[0] != corners[1]
    assert any(y != x for y, x in corners), "down and across have a chance of their own"
    assert all(abs(way) <= 3 for corner in corners for way in corner)


def test_the_eye_learns_from_brief_captions_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "COUNT", 40)
    begun = {}
    real = recipe.train_clip

    def spy(*args, **more):
        begun[more.get("name", "clip")] = (more.get("style"), more.get("patch"))
        return real(*args, **more)

    monkeypatch.setattr(recipe, "train_clip", spy)
    recipe.train(tmp_path / "w", tmp_path / "o", parts=["captioner"], scale=1e-9)
    assert begun == {"eye": ("brief", EYE_PATCH)}


def test_posteriors_are_those_of_the_autoencoder_at_hand(pictures, tmp_path):
    kept = []
    for seed in (0, 1, 0):
        vae = train_autoencoder(
            pictures, tmp_path / str(seed), seed=seed, steps=1, device="cpu", batch=2
        )
        kept.append(recipe._posteriors(vae, pictures, tmp_path, "cpu"))
    assert not torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])
    assert len(list(tmp_path.glob("posteriors-*.pt"))) == 2


def test_the_parser_is_not_trained_without_treebanks(tmp_path):
    with pytest.raises(ValueError, match="--treebanks"):
        recipe.train(tmp_path, tmp_path, parts=["parser"])


def test_the_recipe_trains_what_loads_and_takes_a_trained_autoencoder(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "COUNT", 40)
    out = tmp_path / "out"
    parts = ["clip", "autoencoder", "unet", "captioner"]
    recipe.train(tmp_path / "work", out, parts=parts, scale=1e-9)
    models = load_models(out / "stable-diffusion")
    assert models.text.encoders[0].dtype == torch.float32
    assert (out / "clip" / "model.safetensors").is_file()
    assert (out / "blip" / "model.safetensors").is_file()

    other = tmp_path / "other"
    vae = out / "stable-diffusion" / "vae"
    recipe.train(
        tmp_path / "elsewhere", other, parts=["unet"], seed=1, scale=1e-9, autoencoder=vae
    )
    assert not (tmp_path / "elsewhere" / "autoencoder.ckpt").exists()
    again = load_models(other / "stable-diffusion")
    assert all(
        torch.equal(a, b)
        for a, b in zip(models.vae.parameters(), again.vae.parameters(), strict=True)
    )
    assert not all(
        torch.equal(a, b)
        for a, b in zip(models.unet.parameters(), again.unet.parameters(), strict=True)
    )


def test_no_training_module_names_a_mask():
    import ast
    from pathlib import Path

    folder = Path(recipe.__file__).parent
    for stem in ("pictures", "clip", "autoencoder", "unet", "captioner", "recipe"):
        tree = ast.parse((folder / f"{stem}.py").read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not {"mask", "masks"} & names, stem


def test_the_command_line():
    options = parse(["train", "--parts", "clip", "unet", "--seed", "1", "--scale", "0.5"])
    assert (options.parts, options.seed, options.scale) == (["clip", "unet"], 1, 0.5)
    assert parse(["draw"]).out.name == "shapes"
    with pytest.raises(SystemExit):
        parse(["train", "--parts", "nothing"])


def test_clip_and_unet_have_the_seed_that_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "COUNT", 40)
    seeds = []
    for part in ("clip", "unet"):
        real = getattr(recipe, f"train_{part}")

        def spy(*args, real=real, part=part, **more):
            seeds.append((part, more["seed"]))
            return real(*args, **more)

        monkeypatch.setattr(recipe, f"train_{part}", spy)
    recipe.train(tmp_path / "w", tmp_path / "o", parts=["unet"], seed=1, scale=1e-9)
    assert seeds == [("clip", 1), ("unet", 1)]


def test_scaled_latents_have_a_deviation_of_one(tmp_path, pictures):
    vae = train_autoencoder(
        pictures, tmp_path, seed=0, steps=1, device="cpu", batch=2, progress=False
    )
    means = encode_all(vae, pictures, device="cpu", progress=False).float().chunk(2, dim=1)[0]
    assert (means * vae.config.scaling_factor).std() == pytest.approx(1, abs=0.01)
