"""Attribute binding: in how many generated pictures each thing has the color asked for.

Every prompt names two things in two colors. Systems that generate are run on the same prompts and
seeds, and three judges see each picture (`nbhelpers.family.evaluation._judges`). A system's own
choices, such as the size of its step, are made on other prompts, val, and test is run once.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nbhelpers.embeddings import embed
from nbhelpers.evaluation.batched import one_thread
from nbhelpers.evaluation.jobs import (
    PACKAGES,
    SOURCES,
    calibration_of,
    code_version,
    folder_digest,
)
from nbhelpers.evaluation.journal import Record
from nbhelpers.evaluation.run import Evaluate, Item, RunOptions, complete_records
from nbhelpers.evaluation.store import Store
from nbhelpers.evaluation.workers import run_locally
from nbhelpers.family.evaluation._judges import Asked, Judges
from nbhelpers.family.sampling import GUIDANCE, decode, sample
from nbhelpers.family.words import find_things
from nbhelpers.files import write_whole
from nbhelpers.metrics import paired_bootstrap
from nbhelpers.models import CAPTIONER, CLIP, PARSER, Models, load_models
from nbhelpers.settings import OF_THE_PROMPT, SETTINGS
from nbhelpers.versions import version_of
from nbhelpers.weights import EMBEDDED, HUB, data_folder, locate

# How often each is right on true pictures: `python -m recipe score --parts "binding judges"`.
JUDGES = ("clip", "blip", "pixels")
# On these the shares depend besides the evaluation's own `SOURCES`.
OF_BINDING = ("family/*.py", "family/evaluation/_judges.py", "family/evaluation/binding.py")
FILE = "binding.json"


@dataclass(frozen=True)
class System:
    """A system that generates.

    Attributes:
        title: Its authors' name for it.
        generate: The dotted name of its function ``generate(prompts, models, *, seeds, steps,
            guidance)``, which returns latents.
        choices: Keyword arguments of its own, from which val chooses.
        edits: Whether it starts from the prompt without colors, which it takes as ``sources``.
    """

    title: str
    generate: str
    choices: tuple[Mapping[str, Any], ...] = ({},)
    edits: bool = False

    def load(self) -> Callable[..., Tensor]:
        """Returns its function, imported when it is asked for."""
        module, _, name = self.generate.rpartition(".")
        found: Callable[..., Tensor] = getattr(importlib.import_module(module), name)
        return found


# Steps are larger and smaller than the papers' 20, since latents of 20 x 20 have fewer numbers.
SYSTEMS: Mapping[str, System] = {
    "plain": System("Plain prompt", "nbhelpers.family.sampling.sample"),
    "sealed": System("Sealed prompt", "nbhelpers.family.evaluation.binding.generate_sealed"),
    "prompt-to-prompt": System(
        "Prompt-to-Prompt, colors added", "nbhelpers.family.prompt_to_prompt.generate", edits=True
    ),
    "structured-diffusion": System(
        "Structured Diffusion Guidance", "nbhelpers.family.structured_diffusion.generate"
    ),
    "attend-and-excite": System(
        "Attend-and-Excite",
        "nbhelpers.family.attend_and_excite.generate",
        tuple({"step_size": size} for size in (2.0, 20.0, 200.0)),
    ),
    "syngen": System(
        "SynGen",
        "nbhelpers.family.syngen.generate",
        tuple({"step_size": size} for size in (0.2, 2.0, 20.0)),
    ),
}


@dataclass(frozen=True)
class BindingJob:
    """A run before it is run.

    Attributes:
        split: "val" or "test".
        choices: The systems by name, each with the indices of its choices that are run.
        seeds: Every prompt is generated from each of them.
        prompts: Only the first so many; all when None.
        steps: As for `sample`.
        guidance: Likewise.
        model: As for `load_models`.
        device: Likewise.
    """

    split: Literal["val", "test"]
    choices: Mapping[str, Sequence[int]]
    seeds: Sequence[int]
    prompts: int | None = None
    steps: int = 20
    guidance: float = GUIDANCE
    model: str = "stickers"
    device: str = "cpu"

    def settings(self) -> dict[str, Any]:
        """Returns all that the results depend on, as plain JSON; loads no weights."""
        source, commit = locate(self.model, None, "model")
        world = read_prompts()
        return {
            "systems": {
                name: [dict(SYSTEMS[name].choices[i]) for i in indices]
                for name, indices in self.choices.items()
            },
            "split": self.split,
            "seeds": list(self.seeds),
            "steps": self.steps,
            "guidance": self.guidance,
            "model": {"name": self.model, "sha256": None if commit else folder_digest(source)},
            "calibration": calibration_of(source),
            "judges": {
                "models": judged_by(self.model),
                "nouns": world["nouns"],
                "colors": list(world["colors"]),
            },
            "device": self.device.partition(":")[0],
            "code": code_version((*SOURCES, *OF_BINDING)),
            "packages": {name: version_of(name) for name in PACKAGES},
        }

    def items(self) -> list[dict[str, Any]]:
        """Returns one item for each system, choice, seed and prompt."""
        asked = read_prompts()["prompts"][self.split][: self.prompts]
        return [
            {"id": f"{name} {choice} {seed} {number}", "system": name, "choice": choice}
            | {"seed": seed, "prompt": number, **one}
            for name, indices in self.choices.items()
            for choice in indices
            for seed in self.seeds
            for number, one in enumerate(asked)
        ]

    def open(self) -> Evaluate:
        """Loads the models; what it returns generates the items' pictures and judges them."""
        models = load_models(self.model, device=self.device)
        world = read_prompts()
        judges = Judges(models, world["nouns"], world["colors"])

        def evaluate(items: Sequence[Item]) -> list[Record]:
            found: list[Record] = []
            for (name, choice), group in groupby(items, lambda i: (i["system"], i["choice"])):
                alike = list(group)
                pictures = decode(self._generate(name, choice, alike, models), models)
                for item, picture in zip(alike, pictures, strict=True):
                    things = [Asked(**thing) for thing in item["things"]]
                    verdicts = {judge: judges.all[judge](picture, things) for judge in JUDGES}
                    found.append({"id": item["id"], **verdicts})
            return found

        return one_thread()(evaluate) if self.device == "cpu" else evaluate

    def _generate(
        self, name: str, choice: int, items: Sequence[Item], models: Models
    ) -> Float[Tensor, "picture channel h w"]:
        """Returns the latents of a batch of one system and choice."""
        system = SYSTEMS[name]
        more = dict(system.choices[choice])
        if system.edits:
            more["sources"] = [item["colorless"] for item in items]
        # Neighbors share no noise: the seed is the prompt's own.
        seeds = [1000 * item["seed"] + item["prompt"] for item in items]
        how = {"seeds": seeds, "steps": self.steps, "guidance": self.guidance}
        return system.load()([item["text"] for item in items], models, **how, **more)


def generate_sealed(
    prompts: Sequence[str], models: Models, **how: Any
) -> Float[Tensor, "picture channel h w"]:
    """Returns latents of pictures from sealed prompts: the three leaks closed for generation, too.

    Args:
        prompts: Texts that name at least one thing each.
        models: From `load_models`.
        **how: As for `sample`.
    """
    edits = {name: getattr(SETTINGS["sealed"], name) for name in OF_THE_PROMPT}
    sealed = []
    for text in prompts:
        chunks = [thing.chunk for thing in find_things(text, models)]
        sealed.append(embed(text, chunks, models.text, **edits))
    return sample(sealed, models, **how)


def measure_binding(
    work: Path,
    out: Path,
    test: BindingJob,
    options: RunOptions,
    *,
    val_prompts: int | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Chooses on val, runs test, and writes the result as ``binding.json``.

    Both runs resume: the same call goes on where one was stopped.

    Args:
        work: The folder of the runs.
        out: The folder of the result.
        test: What is run on test; of each system, the choices that val may take.
        options: How.
        val_prompts: Only the first so many of val's; all when None.
        workers: How many processes.

    Returns:
        The settings of both runs, and a row for each system and judge: the share of pictures in
        which both things have their color, the gain over the plain prompt, and the 95% bootstrap
        intervals of both over prompts.

    Raises:
        OSError: Prompts, models or folders can't be read or written.
    """
    val = replace(test, split="val", prompts=val_prompts, seeds=test.seeds[:1])
    chosen = {name: [indices[0]] for name, indices in test.choices.items()}
    record: dict[str, Any] = {}
    if asked := {name: indices for name, indices in test.choices.items() if len(indices) > 1}:
        tried = _run(replace(val, choices=asked), work / "val", options, workers)
        record["val"] = {"settings": tried.manifest["settings"], "rows": choices_of(tried)}
        for row in sorted(record["val"]["rows"], key=lambda row: row["mean"]):
            chosen[row["system"]] = [row["choice"]]  # the best comes last
    store = _run(replace(test, choices=chosen), work / "test", options, workers)
    record |= {"settings": store.manifest["settings"], "rows": rows_of(store)}
    write_whole(out / FILE, (json.dumps(record, indent=1) + "\n").encode())
    return record


def _run(job: BindingJob, folder: Path, options: RunOptions, workers: int) -> Store:
    """Returns a finished run in its folder."""
    store = Store(folder, job.settings(), job.items())
    run_locally(store, job.open, options, workers=workers)
    return store


def bound(store: Store) -> dict[tuple[str, int, str], dict[int, list[bool]]]:
    """Lists for each system, choice and judge, by prompt, whether both things have their color.

    Raises:
        ValueError: Items are missing, or ended in an error.
    """
    found: dict[tuple[str, int, str], dict[int, list[bool]]] = {}
    for item, record in zip(store.manifest["items"], complete_records(store), strict=True):
        if "error" in record:
            raise ValueError(
                f"{record['id']} in {store.folder} ended in an error: {record['error']}; run it "
                "again with --retry-errors"
            )
        for judge in JUDGES:
            by_prompt = found.setdefault((item["system"], item["choice"], judge), {})
            by_prompt.setdefault(item["prompt"], []).append(all(record[judge]))
    return found


def choices_of(store: Store) -> list[dict[str, Any]]:
    """Scores each system's choices: the share of bound pictures by each judge, and their mean."""
    shares: dict[tuple[str, int], dict[str, float]] = {}
    for (name, choice, judge), by_prompt in bound(store).items():
        share = float(np.mean([v for values in by_prompt.values() for v in values]))
        shares.setdefault((name, choice), {})[judge] = share
    return [
        {"system": name, "choice": choice, **SYSTEMS[name].choices[choice], **by_judge}
        | {"mean": float(np.mean(list(by_judge.values())))}
        for (name, choice), by_judge in shares.items()
    ]


def rows_of(store: Store) -> list[dict[str, Any]]:
    """Scores each system: the share of bound pictures by each judge, and its gain over plain."""
    found = bound(store)
    plain = {judge: by for (name, _, judge), by in found.items() if name == "plain"}
    rows = []
    for (name, choice, judge), by_prompt in found.items():
        groups = [prompt for prompt, values in by_prompt.items() for _ in values]
        mine, theirs = (
            np.array([float(v) for values in by.values() for v in values])
            for by in (by_prompt, plain[judge])
        )
        share, gain = (
            paired_bootstrap(mine, other, groups) for other in (np.zeros(len(mine)), theirs)
        )
        rows.append(
            {"system": name, "title": SYSTEMS[name].title, **SYSTEMS[name].choices[choice]}
            | {"judge": judge, "share": share.mean, "interval": [share.low, share.high]}
            | {"gain": gain.mean, "gain_interval": [gain.low, gain.high]}
            | {"prompts": len(by_prompt), "pictures": len(mine)}
        )
    return rows


def judged_by(model: str) -> dict[str, str]:
    """Returns what the judges read with: files' SHA-256, or commits on the Hub."""
    if model == EMBEDDED:
        pieces = ("clip", "captioner", "parser")
        return {piece: folder_digest(locate(model, None, piece)[0]) for piece in pieces}
    parser = folder_digest(locate(PARSER, None, "parser")[0])
    return {"clip": HUB[CLIP][0], "captioner": HUB[CAPTIONER][0], "parser": parser}


def read_prompts() -> dict[str, Any]:
    """Returns the prompts of val and test, the nouns with their colors, and the colors in CIELAB.

    Raises:
        OSError: They aren't there.
    """
    path = data_folder() / "stickers" / FILE
    if not path.is_file():
        raise OSError(f"the prompts are not at {path}; write them: python -m recipe binding")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
