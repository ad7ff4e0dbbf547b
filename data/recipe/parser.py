"""A small English parser, trained on treebanks and on made-up captions: the spaCy pipeline.

One token-to-vector network of hashed word features feeds a tagger of parts of speech and a
transition parser; `noun_chunks` reads both. No word vectors, one core, a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from recipe.chunk_scores import as_doc, read_treebanks
from recipe.sentences import Grammar, disguise
from recipe.trees import Tree, fragments, plain

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.training import Example

WIDTH = 96
CONFIG: dict[str, Any] = {
    "tok2vec": {
        "@architectures": "spacy.Tok2Vec.v2",
        "embed": {
            "@architectures": "spacy.MultiHashEmbed.v2",
            "width": WIDTH,
            "attrs": ["NORM", "PREFIX", "SUFFIX", "SHAPE"],
            "rows": [5000, 500, 2500, 300],
            "include_static_vectors": False,
        },
        "encode": {
            "@architectures": "spacy.MaxoutWindowEncoder.v2",
            "width": WIDTH,
            "window_size": 1,
            "maxout_pieces": 3,
            "depth": 4,
        },
    },
    "morphologizer": {
        "@architectures": "spacy.Tagger.v2",
        "tok2vec": {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH},
    },
    "parser": {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "parser",
        "extra_state_tokens": True,
        "hidden_width": 96,
        "maxout_pieces": 2,
        "use_upper": True,
        "tok2vec": {"@architectures": "spacy.Tok2VecListener.v1", "width": WIDTH},
    },
}


def new_pipeline() -> Language:
    """Return an untrained pipeline: shared vectors, parts of speech, parser."""
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec", config={"model": CONFIG["tok2vec"]})
    nlp.add_pipe("morphologizer", config={"model": CONFIG["morphologizer"]})
    nlp.add_pipe(
        "parser", config={"model": CONFIG["parser"], "min_action_freq": 20, "moves": None}
    )
    return nlp


def epoch_trees(trees: Sequence[Tree], *, seed: int, epoch: int, made_up: int) -> list[Tree]:
    """Return what one epoch trains on.

    Treebank sentences as they are or as people type captions, noun phrases cut out of them, and
    `made_up` new sentences of the grammar.
    """
    rng = random.Random(f"epoch-{seed}-{epoch}")
    flights = [t for t in trees if t.source.startswith("en_atis")]
    others = [t for t in trees if not t.source.startswith("en_atis")]
    chosen = others + rng.sample(flights, min(300, len(flights)))
    out = [plain(t) if rng.random() < 0.25 else t for t in chosen]
    for tree in rng.sample(others, min(1500, len(others))):
        out.extend(fragments(plain(tree), rng))
    grammar = Grammar(seed * 100_003 + epoch + 1)
    out.extend(grammar.sentence() for _ in range(made_up))
    out = [disguise(t, rng, 0.15) if rng.random() < 0.4 else t for t in out if t.words]
    rng.shuffle(out)
    return out


def batches(examples: Sequence[Example], words: int) -> Iterator[list[Example]]:
    """Group examples into batches of about `words` words."""
    batch: list[Example] = []
    count = 0
    for example in examples:
        batch.append(example)
        count += len(example.reference)
        if count >= words:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def train_parser(
    treebanks: Path,
    out: Path,
    *,
    folder: Path | None = None,
    seed: int = 0,
    epochs: int,
    made_up: int,
    progress: bool = True,
) -> dict[str, float]:
    """Train the parser and save a folder that `spacy.load` reads.

    Finished work is not done again; a run broken off goes on from the epoch it was in, with the
    same result as one that was not.

    Args:
        treebanks: folder of the Universal Dependencies English treebanks.
        out: where the pipeline goes.
        folder: for the checkpoint and the log; default `out` with `.run` behind its name.
        seed: of the weights, the order and the made-up sentences.
        epochs: about half a minute each on one core.
        made_up: sentences of the grammar in each epoch.
        progress: whether to show a bar.

    Returns:
        The seed, the epochs, the seconds of one core and the words trained on.

    Raises:
        FileNotFoundError: A treebank is missing.
    """
    folder = folder or out.with_name(out.name + ".run")
    log = folder / "parser.log.jsonl"
    done = out / "meta.json"
    if done.exists():
        summary = json.loads(done.read_text(encoding="utf-8")).get("training")
        if summary and summary["epochs"] == epochs and summary["seed"] == seed:
            return summary
    import spacy
    from spacy.training import Example
    from thinc.api import Adam

    trees, _ = read_treebanks(treebanks)
    spacy.util.fix_random_seed(seed)
    nlp = new_pipeline()

    def examples(epoch: int) -> list[Example]:
        chosen = epoch_trees(trees, seed=seed, epoch=epoch, made_up=made_up)
        return [Example(nlp.make_doc(t.text), as_doc(t, nlp)) for t in chosen]

    nlp.initialize(lambda: examples(0))
    optimizer = Adam(0.001, beta1=0.9, beta2=0.999, L2=0.01, grad_clip=1.0, use_averages=True)
    first, seconds, words = load_checkpoint(nlp, optimizer, folder, seed)
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(range(first, epochs), "parser", epochs, initial=first, disable=not progress)
    for epoch in bar:
        started = time.process_time()
        spacy.util.fix_random_seed(seed * 1009 + epoch)
        losses: dict[str, float] = {}
        data = examples(epoch)
        total = sum(len(e.reference) for e in data)
        trained = 0
        for batch in batches(data, words=500):
            part = epoch + trained / total
            optimizer.learn_rate = (
                0.0012 * min(1.0, part / 0.3 + 0.02) * max(0.02, 1 - part / epochs)
            )
            nlp.update(batch, sgd=optimizer, drop=0.2, losses=losses)
            trained += sum(len(e.reference) for e in batch)
        # spaCy applies the shared vectors' gradient one batch late; a checkpoint holds none.
        nlp.get_pipe("tok2vec").finish_update(optimizer)  # type: ignore[attr-defined]
        seconds += time.process_time() - started
        words += trained
        save_checkpoint(nlp, optimizer, folder, seed, epoch + 1, seconds, words)
        record = {"epoch": epoch + 1, "core_seconds": round(seconds, 1), "words": words}
        record |= {name: round(float(loss) / trained, 5) for name, loss in losses.items()}
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        bar.set_postfix({name: f"{loss / trained:.4f}" for name, loss in losses.items()})
    summary = {"seed": seed, "epochs": epochs, "core_seconds": round(seconds), "words": words}
    with nlp.use_params(optimizer.averages):
        save_pipeline(nlp, out, summary)
    return summary


def save_pipeline(nlp: Language, out: Path, summary: dict[str, float]) -> None:
    """Write the pipeline without the training's vocabulary, whole or not at all."""
    clean = new_pipeline()
    clean.from_bytes(nlp.to_bytes(exclude=["vocab"]), exclude=["vocab"])
    clean.meta.update(
        name="stickers_parser",
        description="Parts of speech and dependencies for noun chunks of captions and phrases",
        license="CC BY-SA 4.0",
        training=summary,
        sources=[
            {"name": f"UD English {name}", "license": license, "author": "its annotators"}
            for name, license in (
                ("EWT", "CC BY-SA 4.0"), ("PUD", "CC BY-SA 3.0"), ("ATIS", "CC BY-SA 4.0"),
            )
        ],
    )  # fmt: skip
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    clean.to_disk(partial)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(partial, out)


def parameters(nlp: Language) -> Iterator[tuple[str, Any, str]]:
    """Yield every weight as (a name that lasts, its node, the node's own name for it)."""
    seen: set[int] = set()
    for pipe, component in nlp.pipeline:
        for number, node in enumerate(component.model.walk()):  # type: ignore[attr-defined]
            for name in node.param_names:
                if node.id not in seen and node.has_param(name):
                    yield f"{pipe}/{number}/{name}", node, name
            seen.add(node.id)


def save_checkpoint(
    nlp: Language, optimizer: Any, folder: Path, seed: int, epoch: int, seconds: float, words: int
) -> None:
    """Write weights, moments and averages, whole or not at all."""
    arrays = {"progress": np.array([seed, epoch, seconds, words])}
    for key, node, name in parameters(nlp):
        own = (node.id, name)
        arrays[f"{key}/weight"] = node.get_param(name)
        if own in optimizer.mom1:
            arrays[f"{key}/first"] = optimizer.mom1[own]
            arrays[f"{key}/second"] = optimizer.mom2[own]
            arrays[f"{key}/mean"] = optimizer.averages[own]
            arrays[f"{key}/updates"] = np.array(optimizer.nr_update[own])
    partial = folder / "parser.partial.npz"
    np.savez(partial, allow_pickle=False, **arrays)
    os.replace(partial, folder / "parser.ckpt.npz")


def load_checkpoint(
    nlp: Language, optimizer: Any, folder: Path, seed: int
) -> tuple[int, float, int]:
    """Read what `save_checkpoint` wrote: (epochs done, seconds, words), zeros if nothing is."""
    path = folder / "parser.ckpt.npz"
    if not path.exists():
        return 0, 0.0, 0
    with np.load(path) as arrays:
        kept_seed, epoch, seconds, words = arrays["progress"]
        if kept_seed != seed:
            return 0, 0.0, 0
        for key, node, name in parameters(nlp):
            own = (node.id, name)
            node.set_param(name, arrays[f"{key}/weight"])
            if f"{key}/first" in arrays:
                optimizer.mom1[own] = arrays[f"{key}/first"]
                optimizer.mom2[own] = arrays[f"{key}/second"]
                optimizer.averages[own] = arrays[f"{key}/mean"]
                optimizer.nr_update[own] = int(arrays[f"{key}/updates"])
                node.inc_grad(name, np.zeros_like(node.get_param(name)))  # as after an update
    return int(epoch), float(seconds), int(words)
