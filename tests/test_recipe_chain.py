"""The training chain of the sticker world, end to end in little, and what its parts promise."""

import json

import numpy as np
import pytest
import torch
from caption_truth import falsehoods
from recipe import chain
from recipe.art import FOLDER, UNSEEN
from recipe.autoencoder import load_autoencoder, new_autoencoder
from recipe.captions import CAREFUL, said_of, write_caption
from recipe.clip import HELD_OUT, contrastive_loss, exchange_colors, jitter, token_scores
from recipe.judge import PAIRS, Judge, answers, verdicts
from recipe.pictures import draw_pictures, to_unit
from recipe.scenes import draw, sample_scene
from recipe.training import fit, publish
from safetensors.torch import load_file
from torch import nn

from nbhelpers.models import load_captioner, load_models, load_parser
from nbhelpers.segment import segment


@pytest.fixture(scope="module")
def treebanks(tmp_path_factory):
    """Treebanks of a few made-up sentences, each in all three."""
    folder = tmp_path_factory.mktemp("treebanks")
    for name in ("en_ewt-ud-dev", "en_pud-ud-test", "en_atis-ud-dev"):
        sentences = [
            f"1\ta\t_\tDET\t_\t_\t2\tdet\t_\t_\n"
            f"2\t{name[3:6]}{number}\t_\tNOUN\t_\t_\t3\tnsubj\t_\t_\n"
            f"3\tsleeps\t_\tVERB\t_\t_\t0\troot\t_\t_\n"
            for number in range(30)
        ]
        (folder / f"{name}.conllu").write_text("\n".join(sentences))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, treebanks):
    """The whole chain, a few steps of everything."""
    work, out = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("out")
    chain.train(work, out, budget=chain.QUICK, treebanks=treebanks)
    return work, out


@pytest.mark.timeout(600)
def test_the_quick_chain_makes_models_that_load_and_segment(trained):
    _, out = trained
    models = load_models(out / "stable-diffusion", captioner=str(out / "blip"))
    assert load_parser(out / "parser").meta["training"]["epochs"] == 1
    scene = sample_scene(np.random.default_rng(1), count=1)
    picture, _ = draw(scene)
    found = segment(picture, "the red car", models)
    assert found.mask.shape == picture.shape[:2]
    assert load_captioner(str(out / "blip")).model.config.vision_config.image_size == 80


@pytest.mark.timeout(600)
def test_a_trained_chain_trains_nothing_again(trained, treebanks):
    work, out = trained
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.ckpt*")}
    assert {path.name.partition(".")[0] for path in before} >= set(chain.PARTS)
    weights = (out / "stable-diffusion/unet/diffusion_pytorch_model.safetensors").read_bytes()
    chain.train(work, out, budget=chain.QUICK, treebanks=treebanks)
    assert before == {path: path.stat().st_mtime_ns for path in work.rglob("*.ckpt*")}
    again = (out / "stable-diffusion/unet/diffusion_pytorch_model.safetensors").read_bytes()
    assert weights == again


@pytest.mark.timeout(600)
def test_a_second_seed_takes_the_autoencoder_it_is_given(trained, tmp_path, monkeypatch):
    """CLIP and UNet have the seed that was asked for; the shared autoencoder isn't trained."""
    seeds = []
    for part in ("clip", "unet"):
        real = getattr(chain, f"train_{part}")

        def spy(*args, real=real, part=part, **more):
            seeds.append((part, more["seed"]))
            return real(*args, **more)

        monkeypatch.setattr(chain, f"train_{part}", spy)
    monkeypatch.setattr(chain, "train_autoencoder", None)
    work, out = trained
    vae = out / "stable-diffusion" / "vae"
    chain.train(work, tmp_path, parts=["unet"], seed=1, budget=chain.QUICK, autoencoder=vae)
    assert seeds == [("clip", 1), ("unet", 1)]
    both = [load_models(folder / "stable-diffusion") for folder in (out, tmp_path)]
    for part, alike in (("vae", True), ("unet", False)):
        pairs = zip(*(getattr(models, part).parameters() for models in both), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) == alike, part


def test_an_unknown_part_and_a_missing_device_are_refused(tmp_path):
    with pytest.raises(ValueError, match="eye"):
        chain.train(tmp_path, tmp_path, parts=["eye"])
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="--device cpu"):
            chain.train(tmp_path, tmp_path, device="cuda")


class Stopped(Exception):
    pass


def train_line(folder, *, stop_at=None):
    """Fit a line; raise before step `stop_at`."""
    torch.manual_seed(0)
    line = nn.Linear(3, 1)

    def loss(step, generator):
        if step == stop_at:
            raise Stopped
        return (line(torch.randn(8, 3, generator=generator)) - 1).square().mean()

    fit(
        "line",
        loss,
        parameters=line.parameters(),
        kept={"line": line},
        folder=folder,
        steps=60,
        rate=1e-2,
        seed=3,
        save_every_seconds=0,
        progress=False,
    )
    return line


def test_a_resumed_run_ends_as_an_unbroken_one(tmp_path):
    whole = train_line(tmp_path / "whole")
    with pytest.raises(Stopped):
        train_line(tmp_path / "broken", stop_at=33)
    resumed = train_line(tmp_path / "broken")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "broken/line.log.jsonl").read_text().splitlines()
    ]
    assert steps == [50, 60]


def test_pictures_of_another_seed_are_refused_and_a_whole_set_is_taken(tmp_path):
    first = draw_pictures(tmp_path, count=6, seed=0, workers=1, progress=False)
    again = draw_pictures(tmp_path, count=6, seed=0, workers=1, progress=False)
    np.testing.assert_array_equal(first.pictures, again.pictures)
    rng = np.random.default_rng((0, 4))
    np.testing.assert_array_equal(first.pictures[4], draw(sample_scene(rng))[0])
    with pytest.raises(ValueError, match="of seed 0"):
        draw_pictures(tmp_path, count=6, seed=1, progress=False)
    assert chain.FULL.pictures < HELD_OUT


def test_contrastive_loss_is_the_mean_of_both_cross_entropies():
    logits = torch.randn(5, 5, dtype=torch.float64)
    rows = [-(logits[i, i] - logits[i].exp().sum().log()) for i in range(5)]
    columns = [-(logits[i, i] - logits[:, i].exp().sum().log()) for i in range(5)]
    expected = (sum(rows) + sum(columns)) / 10
    torch.testing.assert_close(contrastive_loss(logits), expected)


def test_token_scores_are_the_mean_best_cosine_of_the_words():
    rng = np.random.default_rng(0)
    texts, grids = rng.normal(size=(4, 6, 5)), rng.normal(size=(3, 7, 5))
    words = rng.random((4, 6)) < 0.6
    words[:, 1] = True
    expected = np.zeros((3, 4))
    for picture in range(3):
        for caption in range(4):
            best = [
                max(float(texts[caption, token] @ patch) for patch in grids[picture])
                for token in range(6)
                if words[caption, token]
            ]
            expected[picture, caption] = sum(best) / len(best)
    found = token_scores(*map(torch.from_numpy, (texts, grids, words)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_jitter_mirrors_nothing_whose_caption_names_a_side():
    seen = torch.rand(64, 3, 80, 80)
    generator = torch.Generator().manual_seed(0)
    moved = jitter(seen, ["a car on the left"] * 64, generator)
    shifts = range(-4, 5)
    for one, other in zip(seen[:6], moved[:6], strict=True):
        inner = one[:, 10:70, 10:70]
        windows = [other[:, 10 + y : 70 + y, 10 + x : 70 + x] for y in shifts for x in shifts]
        assert min((window - inner).abs().max() for window in windows) == 0
    free = jitter(seen, ["a car"] * 64, torch.Generator().manual_seed(0))
    assert 16 <= sum(bool((a != b).any()) for a, b in zip(moved, free, strict=True)) <= 48


def test_the_judge_is_asked_for_all_that_a_picture_was_to_show():
    scene = sample_scene(np.random.default_rng(2), count=2, twins=True)
    nouns, pairs = answers(scene)
    assert nouns.sum() == 1 and pairs.sum() == 2

    class Oracle(Judge):
        def forward(self, pictures):
            return nouns[None].expand(len(pictures), -1), pairs[None].expand(len(pictures), -1)

    asked = [(thing.noun, thing.color) for thing in scene.things]
    wrong = next(pair for pair in PAIRS if pair not in asked and pair[0] != asked[0][0])
    picture = draw(scene)[0][None].repeat(2, 0)
    found = verdicts(Oracle(), picture, [asked, [asked[0], wrong]])
    assert found["noun"].tolist() == [True, False]
    assert found["both"].tolist() == [True, False]


def test_to_unit_keeps_the_range():
    ends = to_unit(np.array([[[[0, 127, 255]]]], dtype=np.uint8))
    torch.testing.assert_close(ends.flatten(), torch.tensor([-1.0, -1 / 255, 1.0]))


def test_exchanged_colors_make_a_caption_false_and_no_pair_of_testB():
    seen = 0
    for number in range(1500):
        rng = np.random.default_rng((21, number))
        scene = sample_scene(rng)
        caption = write_caption(scene, rng, style=CAREFUL)
        exchanged = exchange_colors(caption)
        if exchanged is None:
            continue
        seen += 1
        assert falsehoods(exchanged, scene), (caption, exchanged)
        assert not set(said_of(exchanged)) & UNSEEN, exchanged
        assert sorted(exchanged.split()) == sorted(caption.split())
    assert seen > 250
    assert exchange_colors("a red car and a blue car") is None
    assert exchange_colors("two black dogs and a white cup") == "two white dogs and a black cup"


def test_what_is_published_is_half_as_large_and_names_no_folder(tmp_path):
    new_autoencoder().save_pretrained(tmp_path / "first")
    vae = load_autoencoder(tmp_path / "first")  # diffusers notes where it was loaded from
    vae.save_pretrained(tmp_path / "vae")
    assert str(tmp_path) in (tmp_path / "vae/config.json").read_text()
    publish(tmp_path)
    config = json.loads((tmp_path / "vae/config.json").read_text())
    assert "_name_or_path" not in config and config["latent_channels"] == 4
    tensors = load_file(tmp_path / "vae/diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_no_shipped_configuration_names_a_folder_of_a_machine():
    for path in FOLDER.parent.rglob("*config.json"):
        assert "_name_or_path" not in json.loads(path.read_text()), path
