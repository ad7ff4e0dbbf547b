"""The training loop, the tokenizer and the models of the sticker world before they are trained."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from recipe import chain
from recipe.__main__ import main, parse
from recipe.autoencoder import encode_all, train_autoencoder
from recipe.captioner import (
    new_captioner,
    new_word_tokenizer,
    save_captioner,
    start_from_clip,
)
from recipe.clip import new_clip, text_encoder, tokenize
from recipe.pictures import draw_pictures, to_unit
from recipe.tokenizer import TOKENS, train_tokenizer
from recipe.training import average_of, fit, half_precision
from recipe.unet import new_scheduler, new_unet, sample_latents, train_unet
from torch import nn
from transformers import BlipForConditionalGeneration, BlipProcessor


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return draw_pictures(folder, count=40, seed=0, workers=1, progress=False)


@pytest.fixture(scope="module")
def tokenizer(pictures, tmp_path_factory):
    texts = pictures.texts("ordinary")
    return train_tokenizer(texts, tmp_path_factory.mktemp("tokenizer"))


def train_sum(folder, steps, seen, *, stop_at=None):
    """Fit a layer to the sum of its inputs, with a moving average; note the batches."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    average = average_of(model, 0.9)

    def take_step(step, generator):
        if step == stop_at:
            raise KeyboardInterrupt
        batch = torch.randn(8, 3, generator=generator)
        seen.append(batch.sum().item())
        return (model(batch) - batch.sum(1, keepdim=True)).square().mean()

    fit(
        "sum",
        take_step,
        parameters=model.parameters(),
        kept={"model": model},
        average=average,
        folder=folder,
        steps=steps,
        rate=0.05,
        seed=7,
        save_every_seconds=0,
        progress=False,
    )
    return model, average


def test_the_average_of_a_resumed_run_is_that_of_an_unbroken_one(tmp_path):
    batches, seen = [], []
    whole, average = train_sum(tmp_path / "whole", 30, batches)
    with pytest.raises(KeyboardInterrupt):
        train_sum(tmp_path / "broken", 30, [], stop_at=11)
    resumed, again = train_sum(tmp_path / "broken", 30, seen)
    assert seen == batches[11:]
    assert torch.equal(whole.weight, resumed.weight)
    assert all(map(torch.equal, average.shadow_params, again.shadow_params))
    assert not torch.equal(average.shadow_params[0], whole.weight)


def test_a_finished_part_is_not_trained_again(tmp_path):
    first, _ = train_sum(tmp_path, 10, [])
    seen = []
    second, _ = train_sum(tmp_path, 10, seen)
    assert not seen
    assert torch.equal(first.weight, second.weight)


def test_the_log_tells_step_loss_and_seconds(tmp_path):
    train_sum(tmp_path, 60, [])
    lines = [json.loads(line) for line in (tmp_path / "sum.log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 60]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "seconds" in lines[0]


def test_a_batch_pairs_pictures_with_their_own_captions(pictures):
    index, captions = pictures.sample(torch.Generator().manual_seed(0), 12, "ordinary")
    same, careful = pictures.sample(torch.Generator().manual_seed(0), 12, "careful")
    assert (same == index).all() and len(set(index.tolist())) > 6
    for number, text, other in zip(index.tolist(), captions, careful, strict=True):
        assert text in pictures.captions["ordinary"][number]
        assert other in pictures.captions["careful"][number]


def test_the_end_token_has_the_largest_id_and_pads(tokenizer):
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    assert tokenizer.bos_token_id == len(tokenizer) - 2
    (ids,) = tokenize(tokenizer, ["a red car"]).tolist()
    assert len(ids) == TOKENS
    assert ids[0] == tokenizer.bos_token_id
    assert set(ids[ids.index(tokenizer.eos_token_id) :]) == {tokenizer.eos_token_id}


def test_the_tokenizer_reads_any_text(tokenizer):
    ids = tokenizer("Café zebra 🦓").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "café zebra 🦓"


def test_the_pooled_vector_is_taken_at_the_end_token(tokenizer):
    torch.manual_seed(0)
    encoder = text_encoder(new_clip(tokenizer))
    ids = tokenize(tokenizer, ["a red car", "a blue cup and a black and white dog"])
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
    ids = tokenize(tokenizer, ["a red car"])
    with torch.no_grad():
        whole = clip.text_model(ids).last_hidden_state
        assert torch.equal(text_encoder(clip)(ids).last_hidden_state, whole)


def test_latents_are_sampled_from_the_posterior_and_scaled():
    mean, variance = torch.full((1, 4, 50, 50), 3.0), torch.full((1, 4, 50, 50), np.log(0.25))
    stacked = torch.cat([mean, variance.float()], 1).half()
    latents = sample_latents(stacked, 2.0, torch.Generator().manual_seed(0))
    assert latents.mean().item() == pytest.approx(6.0, abs=0.05)
    assert latents.std().item() == pytest.approx(1.0, abs=0.05)


def test_the_unet_reads_text_at_each_resolution_and_the_noise_is_stable_diffusions():
    unet = new_unet()
    cross = [name for name, _ in unet.named_modules() if name.endswith("attn2.to_k")]
    blocks = {name.partition(".attentions")[0] for name in cross}
    assert blocks == {f"{way}_blocks.{i}" for way in ("down", "up") for i in range(3)} | {
        "mid_block"
    }
    alphas = new_scheduler().alphas_cumprod
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=np.float64) ** 2
    assert alphas[100].item() == pytest.approx(np.prod(1 - betas[:101]), rel=1e-4)


def test_a_captioner_is_saved_in_blips_own_format(pictures, tmp_path):
    words = new_word_tokenizer(pictures.texts("careful"), tmp_path / "words")
    torch.manual_seed(0)
    save_captioner(new_captioner(words), words, tmp_path / "blip")
    processor, blip = (
        kind.from_pretrained(
            tmp_path / "blip", revision=None, use_safetensors=True, trust_remote_code=False
        )
        for kind in (BlipProcessor, BlipForConditionalGeneration)
    )
    inputs = processor(images=pictures.pictures[0], text="a red car", return_tensors="pt")
    written = blip.generate(**inputs, max_new_tokens=3)[0]
    assert processor.decode(written, skip_special_tokens=True).startswith("a red car")
    assert blip.config.text_config.bos_token_id == words.convert_tokens_to_ids("[DEC]")


def test_blip_begins_with_what_clip_sees(pictures, tokenizer, tmp_path):
    """BLIP has no layer norm before its first layer; folded in, each token's own deviation
    differs a little from the mean one, so the two agree closely and not exactly."""
    torch.manual_seed(0)
    clip = new_clip(tokenizer).eval()
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


def test_posteriors_are_those_of_the_autoencoder_at_hand(pictures, tmp_path):
    kept = []
    for seed in (0, 1, 0):
        vae = train_autoencoder(
            *(pictures, tmp_path / str(seed)),
            **{"seed": seed, "steps": 1, "device": "cpu", "batch": 2, "progress": False},
        )
        kept.append(chain.posteriors(vae, pictures.pictures, tmp_path, "full"))
    assert not torch.equal(kept[0], kept[1])
    assert torch.equal(kept[0], kept[2])
    assert len(list(tmp_path.glob("posteriors-*.pt"))) == 2


def test_pictures_are_taken_from_a_larger_set_and_not_from_a_smaller(pictures, tmp_path):
    """The first so many; what a GPU's larger set begins with is a CPU's."""
    larger = draw_pictures(tmp_path, count=9, seed=0, workers=1, progress=False)
    fewer = draw_pictures(tmp_path, count=4, seed=0, progress=False)
    np.testing.assert_array_equal(fewer.pictures, larger.pictures[:4])
    np.testing.assert_array_equal(fewer.small, larger.small[:4])
    assert fewer.captions == {style: texts[:4] for style, texts in larger.captions.items()}
    assert len(fewer) == 4
    with pytest.raises(ValueError, match="holds 9 pictures of seed 0, but 10 of seed 0"):
        draw_pictures(tmp_path, count=10, seed=0, progress=False)


@pytest.mark.parametrize("given", [False, True])
def test_small_pictures_come_first_where_they_are_given(pictures, tokenizer, tmp_path, given):
    """The loss of the steps taken on them alone isn't a number, for theirs aren't numbers."""
    full = torch.zeros(40, 8, 8, 8).half()
    small = torch.full((40, 8, 4, 4), torch.nan).half() if given else None
    train_unet(
        *(pictures, full, small, 1.0, tokenizer, text_encoder(new_clip(tokenizer)), tmp_path),
        **{"seed": 0, "steps": 1, "device": "cpu", "batch": 2, "progress": False},
    )
    loss = json.loads((tmp_path / "unet.log.jsonl").read_text())["loss"]
    assert np.isnan(loss) == given


@pytest.mark.parametrize("able", [False, True])
def test_a_cpu_computes_in_half_precision_where_it_has_instructions_for_it(monkeypatch, able):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: able)
    with half_precision("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if able else torch.float32)


def test_a_gpu_is_given_more_pictures_and_larger_batches(monkeypatch, tmp_path):
    """The budget goes by the device; as nothing is asked for, the pictures are all that is."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(chain, "draw_pictures", lambda folder, count, seed: asked.append(count))
    monkeypatch.setattr(chain, "load_clip", lambda folder: (None, None))
    monkeypatch.setattr(chain, "note_machine", lambda work, device: None)
    for device in ("cpu", "cuda"):
        chain.train(tmp_path, tmp_path, parts=[], device=device, clip_folder=tmp_path)
    assert asked == [chain.FULL.pictures, chain.LARGE.pictures]
    assert chain.FULL.pictures < chain.LARGE.pictures
    assert chain.FULL.unet_batch < chain.LARGE.unet_batch


def test_scaled_latents_have_a_deviation_of_one(tmp_path, pictures):
    vae = train_autoencoder(
        pictures, tmp_path, seed=0, steps=1, device="cpu", batch=2, progress=False
    )
    means = encode_all(vae, pictures.pictures, progress=False).float().chunk(2, dim=1)[0]
    assert (means * vae.config.scaling_factor).std() == pytest.approx(1, abs=0.01)


def test_no_training_module_names_a_mask():
    folder = Path(chain.__file__).parent
    for stem in ("pictures", "clip", "autoencoder", "unet", "captioner", "chain"):
        tree = ast.parse((folder / f"{stem}.py").read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not {"mask", "masks"} & names, stem


def test_the_parser_is_not_trained_without_treebanks(tmp_path):
    with pytest.raises(ValueError, match="--treebanks"):
        chain.train(tmp_path, tmp_path, parts=["parser"])


def test_the_command_line(tmp_path, monkeypatch, capsys):
    options = parse(["train", "--parts", "clip", "unet", "--seed", "1", "--quick"])
    assert (options.parts, options.seed, options.quick) == (["clip", "unet"], 1, True)
    assert parse(["draw"]).out.name == "stickers"
    with pytest.raises(SystemExit):
        parse(["train", "--parts", "nothing"])
    asked = []

    def note(work, out, *, parts, **more):
        asked.append((work, out, parts))

    monkeypatch.setattr(chain, "train", note)
    command = ["train", "--work", str(tmp_path)]
    main(command)
    assert "--treebanks" in capsys.readouterr().err
    main([*command, "--out", str(tmp_path / "own"), "--treebanks", str(tmp_path)])
    assert not capsys.readouterr().err
    every = list(chain.PARTS)
    assert asked == [  # nothing that is shipped is written over unless it is asked for
        (tmp_path, tmp_path / "models", [part for part in every if part != "parser"]),
        (tmp_path, tmp_path / "own", every),
    ]
