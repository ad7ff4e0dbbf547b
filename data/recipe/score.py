"""Every figure of the models alone, on held-out scenes, written to `results.json`.

How well their attention segments is measured by `python -m nbhelpers evaluate` and `reproduce`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nbhelpers.captions import caption
from nbhelpers.family.diffusion_classifier import presence
from nbhelpers.files import write_whole
from nbhelpers.models import Models, load_captioner, load_models, load_parser
from nbhelpers.segment import segment
from nbhelpers.versions import versions
from recipe.art import COLORS_OF, HELD_OUT_STYLE, NOUNS
from recipe.autoencoder import load_autoencoder, psnr
from recipe.benchmark import SPLITS, scene_of
from recipe.binding import score_judges
from recipe.captions import article, name, said_of
from recipe.card import write_card
from recipe.chunk_scores import score_parser
from recipe.clip import HELD_OUT, load_clip, zero_shot
from recipe.judge import Judge, accuracy, verdicts
from recipe.scenes import Thing, draw, sample_scene
from recipe.sheets import (
    asked_pairs,
    asked_singles,
    contact_sheet,
    generate,
    load_pipeline,
    prompt_of,
)

PHRASES = Path(__file__).resolve().parents[2] / "tests" / "phrases.json"
PACKAGES = ("torch", "diffusers", "transformers", "numpy")  # a result names their versions


def score_autoencoder(out: Path, *, count: int = 200) -> dict[str, float]:
    """Return the mean PSNR of held-out pictures in dB: training's styles, and the held-out one."""
    vae = load_autoencoder(out / "stable-diffusion" / "vae")
    found = {}
    for part, style in (("training styles", None), ("held-out style", HELD_OUT_STYLE)):
        scenes = [
            sample_scene(np.random.default_rng((HELD_OUT + 2, i)), style=style)
            for i in range(count)
        ]
        found[part] = psnr(vae, np.stack([draw(scene)[0] for scene in scenes]))
    return found


def score_clip(out: Path, *, count: int = 1500) -> dict[str, Any]:
    """Return CLIP's zero-shot accuracy of noun and color on held-out single things."""
    clip, tokenizer = load_clip(out / "clip")
    return {
        "training styles": zero_shot(clip, tokenizer, count=count),
        "held-out style": zero_shot(clip, tokenizer, count=count // 3, style=HELD_OUT_STYLE),
    }


def noun_token_shares(models: Models) -> dict[str, float]:
    """Return the shares of a noun's token that its noun and the color before it account for.

    Of every "a photograph of a red car", over the nouns that can take the commonest colors, the
    last hidden state at the noun's last token is taken. The shares are of the total variance:
    between the means of the nouns, and between those of the colors.
    """
    counts = Counter(color for colors in COLORS_OF.values() for color in colors)
    colors = [color for color, _ in counts.most_common(5)]
    nouns = [n for n, own in COLORS_OF.items() if set(colors) <= set(own)]
    nouns = [noun for noun in nouns if name(Thing(noun, "red", (0, 0), 0)).endswith(noun)]
    tokenizer, encoder = models.text.tokenizers[0], models.text.encoders[0]
    states = []
    for noun in nouns:
        for color in colors:
            text = f"a photograph of {article(color)} {color} {noun}"
            tokens = tokenizer(text, return_tensors="pt").to(encoder.device)
            with torch.no_grad():
                states.append(encoder(tokens.input_ids).last_hidden_state[0, -2].double().cpu())
    each = torch.stack(states).unflatten(0, (len(nouns), len(colors)))
    each = each - each.mean((0, 1))
    total = each.square().sum(-1).mean()
    shares = {
        part: float(each.mean(axis).square().sum(-1).mean() / total)
        for part, axis in (("noun", 1), ("color", 0))
    }
    return {**shares, "nouns": len(nouns), "colors": len(colors)}


def score_captions(out: Path) -> dict[str, float]:
    """Return the share of testA's captions by BLIP in which every noun and color is right."""
    captioner = load_captioner(str(out / "blip"))
    first = 1 + SPLITS["val"]
    right, named = [], []
    for number in range(first, first + SPLITS["testA"]):
        scene = scene_of(number, "testA")
        said = Counter(said_of(caption(draw(scene)[0], captioner)))
        true = Counter((thing.noun, thing.color) for thing in scene.things)
        right.append(bool(said) and not said - true)
        named.append(said.total())
    return {
        "right": float(np.mean(right)),
        "things named": float(np.mean(named)),
        "captions": len(right),
    }


def score_generated(work: Path, out: Path, *, seeds: int = 3) -> dict[str, Any]:
    """Return what the judge sees in generated pictures, none left out, with 95% intervals.

    100 prompts of one thing and 100 of two things in two colors, a picture a prompt and seed.
    """
    judge = Judge()
    state = torch.load(work / "judge.ckpt", weights_only=True, map_location="cpu")
    judge.load_state_dict(state["judge"])
    pipeline = load_pipeline(out / "stable-diffusion")
    found: dict[str, Any] = {"judge on true pictures": accuracy(judge.eval())}
    for part, asked in (("one thing", asked_singles()), ("two things", asked_pairs())):
        prompts = [prompt_of(things) for things in asked]
        rows: dict[str, list[np.ndarray]] = {"noun": [], "both": []}
        for seed in range(seeds):
            pictures = generate(pipeline, prompts, seed=seed)
            for key, right in verdicts(judge, pictures, asked).items():
                rows[key].append(right)
        found[part] = {key: share(np.stack(value)) for key, value in rows.items()}
        found[part]["pictures"] = seeds * len(prompts)
    return found


def share(right: np.ndarray, *, draws: int = 10_000) -> dict[str, float]:
    """Return a share and its 95% bootstrap interval over prompts (`seed`, `prompt`)."""
    means = right.mean(0)
    chosen = np.random.default_rng(0).integers(len(means), size=(draws, len(means)))
    low, high = np.quantile(means[chosen].mean(1), (0.025, 0.975))
    return {"share": float(means.mean()), "low": float(low), "high": float(high)}


def score_presence(models: Models, *, count: int = 100) -> dict[str, float]:
    """Return how well `presence` and a map's peak tell nouns that are there from others.

    Each of the first `count` pictures of testA is asked for a noun of its own and for one that it
    lacks. The area under the ROC curve is the chance that the first kind has the higher value.
    """
    first = 1 + SPLITS["val"]
    values: dict[str, list[tuple[float, ...]]] = {"presence": [], "peak": []}
    for number in range(first, first + count):
        scene = scene_of(number, "testA")
        rng = np.random.default_rng((HELD_OUT + 3, number))
        own = sorted({thing.noun for thing in scene.things})
        asked = [f"the {rng.choice(nouns)}" for nouns in (own, sorted({*NOUNS} - {*own}))]
        image = draw(scene)[0]
        values["presence"].append(tuple(presence(image, asked, models)))
        values["peak"].append(tuple(found.peak for found in segment(image, asked, models)))
    areas = {}
    for measure, pairs in values.items():
        there, absent = np.array(pairs).T[:, :, None]
        areas[measure] = float((there > absent.T).mean() + (there == absent.T).mean() / 2)
    return {**areas, "pictures": count}


def time_loading(out: Path, *, pictures: int = 20) -> dict[str, float]:
    """Return the seconds that loading takes, and a picture."""
    started = time.perf_counter()
    models = load_world(out)
    _ = models.captioner, models.parser  # loaded on first use
    loaded = time.perf_counter()
    for number in range(1, 1 + pictures):
        scene = scene_of(number, "val")
        segment(draw(scene)[0], f"the {name(scene.things[0])}", models)
    return {
        "loading": loaded - started,
        "a picture": (time.perf_counter() - loaded) / pictures,
        "threads": float(torch.get_num_threads()),
    }


def load_world(out: Path) -> Models:
    """Return the models of a folder, its own CLIP, BLIP and parser among them."""
    models = load_models(
        out / "stable-diffusion", captioner=str(out / "blip"), parser=str(out / "parser")
    )
    return replace(models, sources={**models.sources, "clip": str(out / "clip")})


def training_cost(work: Path, out: Path) -> dict[str, Any]:
    """Return the last figures of every part's log: its steps, loss and seconds.

    The parser's folder holds its own; its log is in epochs.
    """
    meta = json.loads((out / "parser" / "meta.json").read_text(encoding="utf-8"))
    cost = {"parser": meta["training"]}
    for path in sorted([*work.glob("*.log.jsonl"), *work.glob("seed-*/*.log.jsonl")]):
        merged: dict[str, Any] = {}
        for line in path.read_text().splitlines():
            merged.update(json.loads(line))
        name = path.relative_to(work).as_posix().removesuffix(".log.jsonl")
        if not name.endswith("/parser"):
            cost[name] = merged
    return cost


def machines(work: Path) -> list[dict[str, Any]]:
    """Return the kinds of machine that trained the parts: device, threads, versions."""
    path = work / "machines.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    kinds = [
        {key: value for key, value in json.loads(line).items() if key != "finished"}
        for line in lines
    ]
    return [kind for number, kind in enumerate(kinds) if kind not in kinds[:number]]


def score(
    work: Path, out: Path, *, parts: Iterable[str] | None = None, treebanks: Path | None = None
) -> None:
    """Measure `parts`, keep the rest of `results.json`, write it after each, then the card.

    Args:
        work: where the logs of training and the judge lie.
        out: the folder of the models.
        parts: a choice of the names below; all if not given.
        treebanks: as in training, to score the parser on their held-out sentences too.

    Raises:
        ValueError: if there is no such part.
    """
    path = out / "results.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def sheet() -> int:
        contact_sheet(out / "stable-diffusion").save(out / "contact-sheet.png")
        return 48

    steps: dict[str, Callable[[], Any]] = {
        "autoencoder": lambda: score_autoencoder(out),
        "clip": lambda: score_clip(out),
        "noun token": lambda: noun_token_shares(load_models(out / "stable-diffusion")),
        "captions": lambda: score_captions(out),
        "parser": lambda: score_parser(
            load_parser(out / "parser"), treebanks=treebanks, phrases=PHRASES
        ),
        "contact sheet": sheet,
        "generated": lambda: score_generated(work, out),
        "binding judges": lambda: score_judges(load_world(out)),
        "presence": lambda: score_presence(load_models(out / "stable-diffusion")),
        "seconds": lambda: time_loading(out),
        # parts may be trained on several machines; what another one logged is kept
        "training": lambda: record.get("training", {}) | training_cost(work, out),
        "machines": lambda: machines(work) or record.get("machines", []),
    }
    if unknown := sorted(set(parts or ()) - set(steps)):
        raise ValueError(f"the parts are {', '.join(steps)}; got {', '.join(unknown)}")
    for part in parts or steps:
        record.update({part: steps[part](), "versions": versions(PACKAGES)})
        write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
    write_card(out)
