"""Many settings in one look, against one `segment` each; phrases in their orders; classes."""

import ast
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import nbhelpers as nb
from nbhelpers.calibration import Calibration, Gathering
from nbhelpers.cli import main
from nbhelpers.evaluation.batched import THRESHOLDS, Question, Reader, count
from nbhelpers.evaluation.classes import Drawn, count_classes, read_classes
from nbhelpers.evaluation.jobs import (
    ORDERS,
    SOURCES,
    Job,
    code_version,
    kind_of,
    variants_of,
)
from nbhelpers.segment import SETTINGS

VARIANTS = {
    **SETTINGS,
    "twice": replace(SETTINGS["paper"], steps=2, transpose=True),
    "words": replace(SETTINGS["paper"], softmax_over="words"),
    "two looks": replace(SETTINGS["plain"], timesteps=(50, 300)),
    "values": replace(SETTINGS["paper"], into="values"),
    "another seed": replace(SETTINGS["sealed"], seed=3),
    "smaller": replace(SETTINGS["sealed"], size=(64, 48)),
    "up": replace(SETTINGS["paper"], layers="up"),
    "down": replace(SETTINGS["paper"], layers="down"),
    "no mid": replace(SETTINGS["paper"], layers="no-mid", weights="equal"),
    "means": replace(SETTINGS["paper"], normalize="none"),
    "unnamed": replace(SETTINGS["sealed"], calibrated_for=None),
}
OWN = Gathering((40, 400), None, "up", "none", "words", 0.3)


def test_every_map_is_that_of_segment(models, image):
    models = replace(models, calibration=Calibration(methods={"sealed": OWN}))
    reader = Reader(models, VARIANTS)
    assert len(reader.passes) == 10  # one for all that differs only after it
    (maps,) = reader.maps([Question(image, "a striped  ring")])
    assert maps.shape == (len(VARIANTS), *image.shape[:2])
    seen = []
    for name, found in zip(VARIANTS, maps, strict=True):
        alone = nb.segment(image, "a striped ring", models, settings=VARIANTS[name])
        assert np.array_equal(found, alone.map), name
        if name in SETTINGS:
            assert np.array_equal(
                found, nb.segment(image, "a striped ring", models, method=name).map
            )
        assert not any(np.array_equal(found, other) for other in seen), name
        seen.append(found)


def test_a_batch_rounds_otherwise_and_no_more(models, image):
    other = image[::-1].copy()
    questions = [
        Question(image, "a red ring"),
        Question(other, "the moon", before="a red ring and "),
    ]
    questions.append(Question(image, "a moon"))
    together = Reader(models, VARIANTS).maps(questions)
    reader = Reader(models, VARIANTS)
    alone = [reader.maps([question])[0] for question in questions]
    for a, b in zip(together, alone, strict=True):
        assert (a - b).abs().max() < 1e-3
    assert (alone[0] - alone[2]).abs().max() > 0.05


def test_the_target_stands_where_the_phrase_does(models, image):
    """The same phrase twice: the second is meant, which a search from the start would miss."""
    reader = Reader(models, {"plain": SETTINGS["plain"], "paper": SETTINGS["paper"]})
    (second,) = reader.maps([Question(image, "a ring", before="a ring and ", after=" and a moon")])
    (first,) = reader.maps([Question(image, "a ring", after=" and a ring and a moon")])
    assert (first - second).abs().max() > 1e-3


def test_a_picture_is_encoded_once(models, image, monkeypatch):
    from nbhelpers.evaluation import batched

    encoded, encode = [], batched.encode_image
    monkeypatch.setattr(
        batched, "encode_image", lambda *a, **k: encoded.append(k["seed"]) or encode(*a, **k)
    )
    reader = Reader(models, {"plain": SETTINGS["plain"], "paper": SETTINGS["paper"]})
    for phrase in ("a ring", "a moon"):
        reader.maps([Question(image, phrase)])
    assert encoded == [0]
    reader.maps([Question(image.copy(), "a ring")])
    assert encoded == [0, 0]


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_map_that_says_nothing_is_an_error_and_no_zero(models, image, monkeypatch, value):
    from nbhelpers.evaluation.run import work

    def flat(scores, *layers, **more):
        return torch.full_like(scores, value)

    monkeypatch.setattr(sys.modules["nbhelpers.segment"], "complete", flat)
    reader = Reader(models, {"plain": SETTINGS["plain"]})

    def evaluate(items):
        (maps,) = reader.maps([Question(image, "a ring")])
        truth = np.ones(image.shape[:2], bool)
        return [{"id": item["id"], "counts": count(maps, truth, reader.names)} for item in items]

    (record,) = work(evaluate, [{"id": "1"}])
    assert record.keys() == {"id", "error"}
    assert record["error"].startswith("ValueError: ")


def test_a_phrase_without_a_noun_is_refused(models, image):
    with pytest.raises(ValueError, match="no noun chunk was found"):
        Reader(models, {"plain": SETTINGS["plain"]}).maps([Question(image, "of the")])


def test_counts_are_those_of_the_masks():
    rng = np.random.default_rng(0)
    maps = rng.random((2, 9, 7), dtype=np.float32)
    maps[0, 0, 0], maps[0, 0, 1] = 0.3, 1.0
    truth = rng.random((9, 7)) < 0.4
    counts = count(torch.from_numpy(maps), truth, ["a", "b"])
    for values, name in zip(maps, "ab", strict=True):
        for t, threshold in enumerate(THRESHOLDS):
            mask = nb.to_masks(torch.from_numpy(values)[None], (9, 7), 0)[0] & (
                values >= np.float32(threshold)
            )
            assert counts[name][0][t] == (mask & truth).sum()
            assert counts[name][1][t] == (mask | truth).sum()


def test_classes_by_hand():
    """Two classes in one row of five pixels, the last of which doesn't count."""
    cat, dog = [[0.9, 0.6, 0.2, 0.1, 1.0]], [[0.1, 0.7, 0.8, 0.05, 0.0]]
    truth = np.array([[1, 1, 2, 0, 255]], np.uint8)
    maps = [torch.tensor(values) for values in (cat, dog)]
    counts = count_classes(maps, [1, 2], truth, 4)
    at = {name: [pair[0][50], pair[1][50]] for name, pair in counts.items()}
    assert at == {"0": [1, 1], "1": [1, 2], "2": [1, 2]}
    high = {name: [pair[0][90], pair[1][90]] for name, pair in counts.items()}
    assert high == {"0": [1, 3], "1": [1, 2], "2": [0, 1]}
    assert [counts["0"][0][0], counts["1"][1][0]] == [0, 3]  # at 0 nothing is background


@pytest.mark.parametrize(
    ("phrase", "category", "kind"),
    [
        ("left guy", "person", "position"),
        ("the dog in front", "dog", "position"),
        ("a hot dog", "hot dog", "noun"),
        ("fish", "fish", "noun"),
        ("the dotted red fish", "fish", "attribute"),
        ("bright jacket", "person", "attribute"),
        ("the leftover", "pizza", "noun"),
    ],
)
def test_kinds(phrase, category, kind):
    assert kind_of(phrase, category) == kind


@pytest.fixture(scope="module")
def job():
    return Job("stickers", "val", variants_of(["plain"]), pictures=3)


def test_items_are_the_expressions_of_the_first_pictures(job):
    raw = json.loads((nb.weights.data_folder() / "stickers" / "refs(stickers).json").read_text())
    mine = [s for ref in raw for s in ref["sentences"] if ref["image_id"] <= 3]
    assert [item["phrase"] for item in job.items()] == [s["sent"] for s in mine]
    assert [item["kind"] for item in job.items()] == [s["kind"] for s in mine]
    assert [item["id"] for item in job.items()] == [str(s["sent_id"]) for s in mine]


def test_the_kinds_of_stickers_are_those_it_was_made_with():
    raw = json.loads((nb.weights.data_folder() / "stickers" / "refs(stickers).json").read_text())
    kinds = {s["sent_id"]: s["kind"] for ref in raw for s in ref["sentences"]}
    items = Job("stickers", "testA", {}).items()
    assert [item["kind"] for item in items] == [kinds[item["expression"]] for item in items]


def test_every_order_names_the_same_target(job):
    items = replace(job, prompts="orders").items()
    assert [item["order"] for item in items] == [*ORDERS] * 3
    for item in items:
        text = item["before"] + item["phrase"] + item["after"]
        phrases = text.split(" and ")
        assert (
            phrases[0 if item["order"] == "alone" else int(item["order"][0]) - 1]
            == (item["phrase"])
        )
        assert len(phrases) == (1 if item["order"] == "alone" else int(item["order"][-1]))
        assert item["kind"] == "attribute"
    assert len({item["id"] for item in items}) == len(items)


def test_the_other_phrases_of_an_order_are_of_the_pictures_other_things(job):
    """Every phrase of a prompt means a thing of its own, and the others keep their order."""
    things = {(e.image_id, e.text): e.annotation_id for e in job.data.expressions}
    for item in replace(job, prompts="orders").items():
        phrases = (item["before"] + item["phrase"] + item["after"]).split(" and ")
        named = [things[item["image"], phrase] for phrase in phrases]
        others = [thing for thing in named if thing != things[item["image"], item["phrase"]]]
        assert len(set(named)) == len(named) == len(others) + 1
        assert others == sorted(others)


PACKAGE = Path(nb.__file__).parent
# Only reported with or shown with, after the pixels were counted.
REPORTED = {"metrics/bootstrap.py", "metrics/overlaps.py", "display.py"}


def needed(start):
    """The package's modules that a module imports, and those that they import, as its files."""
    found, left = set(), [start]
    while left:
        path = left.pop()
        found.add(path)
        for node in ast.walk(ast.parse((PACKAGE / path).read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("nbhelpers."):
                below = node.module.split(".")[1:]
                tried = ["/".join([*below, alias.name]) + ".py" for alias in node.names]
                tried += ["/".join(below) + ".py", "/".join([*below, "__init__.py"])]
                left += [t for t in tried if (PACKAGE / t).is_file() and t not in found]
    return {name for name in found if not name.endswith("__init__.py")} - REPORTED


def test_the_fingerprint_of_the_code_holds_every_module_that_makes_the_numbers():
    """A renamed module may not drop out of it in silence, nor a pattern match nothing."""
    matched = {pattern: set(PACKAGE.glob(pattern)) for pattern in SOURCES}
    assert all(matched.values()), matched
    stages = needed("evaluation/batched.py") | needed("evaluation/classes.py")
    assert {"scores.py", "embeddings.py", "kernels/eager.py", "weights.py"} < stages
    held = {p.relative_to(PACKAGE).as_posix() for p in set.union(*matched.values())}
    # What reads the family's systems has a fingerprint of its own, `family.reading.SOURCES`.
    assert stages - {"family/reading.py"} <= held


def test_settings_name_what_matters(job):
    settings = job.settings()
    assert json.loads(json.dumps(settings)).keys() == settings.keys()
    assert settings["code"] == code_version()
    assert settings["dataset"]["sha256"] == job.data.sha256()
    other = replace(job, variants=variants_of(["plain"], alphas=[0.5])).settings()
    assert {key for key in settings if settings[key] != other[key]} == {"variants"}


def test_variants():
    found = variants_of(["paper", "sealed"], alphas=[0.5], seeds=[0, 1])
    assert list(found) == [
        *("paper alpha=0.5 seed=0", "paper alpha=0.5 seed=1"),
        *("sealed alpha=0.5 seed=0", "sealed alpha=0.5 seed=1"),
    ]
    assert found["paper alpha=0.5 seed=1"] == replace(SETTINGS["paper"], alpha=0.5, seed=1)
    with pytest.raises(ValueError, match="method is one of plain"):
        variants_of(["best"])


def test_drawn_classes(job, models):
    scenes = Drawn(job.data)
    truth = scenes.class_map(1)
    things = {e.annotation_id: e for e in job.data.expressions if e.image_id == 1}
    for thing in things.values():
        assert set(np.unique(truth[job.data.mask(thing)])) == {
            scenes.categories.index(thing.category)
        }
    area = sum(int(job.data.mask(thing).sum()) for thing in things.values())
    assert (truth > 0).sum() == area

    class Named:
        """Answers with the true region of a class, and knows no other."""

        names = ("plain",)

        def maps(self, questions):
            number = scenes.categories.index(questions[0].phrase)
            return [torch.from_numpy((truth == number).astype(np.float32))[None]]

        together = Reader.together

    counts = read_classes(scenes, 1, Named())["plain"]
    assert set(counts) == {str(c) for c in np.unique(truth)}
    for shared, either in counts.values():
        assert shared[1:] == either[1:]


# The command -----------------------------------------------------------------------------------


@pytest.fixture
def loaded(models, monkeypatch):
    from nbhelpers.evaluation import jobs

    calls = []
    monkeypatch.setattr(jobs, "load_models", lambda *a, **k: calls.append(a) or models)
    return calls


def command(*more):
    base = ["evaluate", "--dataset", "stickers", "--method", "plain", "--pictures", "1", "--quiet"]
    return main([*base, "--root", "data/stickers", *more])


@pytest.fixture
def stickers(tmp_path, monkeypatch):
    """A copy of the benchmark's first picture, whose nouns the small parser doesn't know."""
    home = nb.weights.data_folder() / "stickers"
    there = tmp_path / "data" / "stickers"
    (there / "images").mkdir(parents=True)
    refs = json.loads((home / "refs(stickers).json").read_text())[:3]
    for ref in refs:
        for sentence in ref["sentences"]:
            sentence["sent"] = "a ring" if sentence["kind"] == "attribute" else "of of"
    (there / "refs(stickers).json").write_text(json.dumps(refs))
    shutil.copy(home / "instances.json", there)
    shutil.copy(home / "images" / "000001.png", there / "images")
    monkeypatch.chdir(tmp_path)
    return there


def test_errors_are_counted_and_the_rest_goes_on(stickers, loaded, capsys):
    assert command("--out", "run") == 3
    message = capsys.readouterr().err
    assert "4 items ended in an error and are left out, such as" in message
    assert "no noun chunk was found in 'of of'" in message
    report = json.loads(Path("run/report.json").read_bytes())
    assert (report["items"], len(report["errors"])) == (7, 4)
    assert command("--out", "run") == 3
    assert len(loaded) == 1  # errors are results: nothing was to be done
    assert command("--out", "run", "--retry-errors") == 3
    assert len(loaded) == 2


def test_the_command_resumes_and_refuses(stickers, loaded, capsys):
    assert command("--out", "run", "--shard", "0/2") == 0
    assert not Path("run/report.json").exists()
    assert command("--out", "run", "--shard", "1/2", "--batch", "4") == 3
    assert command("--out", "run", "--seeds", "1") == 2
    assert "holds a run with other settings: variants.plain" in capsys.readouterr().err
    assert len(loaded) == 2  # refused before any model was loaded
    picture = stickers / "images" / "000001.png"
    picture.write_bytes(picture.read_bytes()[:-9])
    assert command("--out", "run") == 2
    assert "dataset.sha256 is" in capsys.readouterr().err


def test_the_command_refuses_before_it_loads(stickers, loaded, capsys):
    Path("file").write_text("")
    assert command("--out", "file/run") == 2
    assert "results can't be written to file/run" in capsys.readouterr().err
    assert command("--out", "run", "--shard", "2/2") == 2
    assert "wanted I/N with I from 0 to N - 1" in capsys.readouterr().err
    assert command("--out", "run", "--split", "test") == 2
    assert "no split" in capsys.readouterr().err
    assert loaded == []
