"""Each method's own gathering: what is tried, what is counted, which is taken, what is written."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recipe import calibration as search_of
from recipe.__main__ import main
from recipe.calibration import choose, pack, standard_errors, unpack
from recipe.gatherings import STEPS, TIMESTEPS, candidates, search_phrase, simplicity

import nbhelpers as nb
from nbhelpers.calibration import Gathering, as_record, read_calibration
from nbhelpers.evaluation.batched import THRESHOLDS
from nbhelpers.settings import SETTINGS, Settings

SMALL = [(1, "down"), (2, "down"), (2, "mid"), (2, "up"), (1, "up")]
SD15 = [*((f, block) for f in (1, 2, 4) for block in ("down", "up")), (8, "mid")]

# What is tried ---------------------------------------------------------------------------------


def said(gathering):
    """All but the timesteps, to be compared."""
    return (*as_record(gathering).values(),)[1:5]


def test_each_different_gathering_is_tried_once():
    """Two resolutions, counted by hand: DiffSegmenter's weights, .1 and .1, are equal ones."""
    tried = [g for g in candidates(SMALL) if g.timesteps == (100,) and g.softmax_over == "all"]
    joined = [
        (None, layers, how) for layers in ("all", "no-mid", "up") for how in ("none", "min-max")
    ]
    fine = [({"1": 1.0}, layers, "none") for layers in ("all", "up")]  # it has no middle block
    coarse = [({"2": 1.0}, layers, "none") for layers in ("all", "no-mid", "up")]
    wanted = [(*one, "all") for one in (*joined, *fine, *coarse)]
    assert sorted(map(repr, map(said, tried))) == sorted(map(repr, wanted))
    assert len(candidates(SMALL)) == len(wanted) * len(TIMESTEPS) * 2
    order = [simplicity(g) for g in candidates(SMALL)]
    assert order == sorted(order)
    assert candidates(SMALL)[0].normalize == "none"


def test_nothing_is_tried_that_scores_no_layer():
    tried = candidates(SD15)
    coarsest = {g.layers for g in tried if g.weights == {8: 1.0}}
    assert coarsest == {"all"}
    assert {8: 0.3, 4: 0.5, 2: 0.1, 1: 0.1} in [g.weights for g in tried]
    assert {1: 1.0, 2: 1.0} in [g.weights for g in tried]
    assert len(candidates([(1, "up")])) == len(TIMESTEPS) * 2


# What is counted -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["models", "models_15"])
def test_every_gathering_is_that_of_segment(kind, request, image):
    """The curve of each, from one pass, beside a segmentation with just these settings."""
    models = request.getfixturevalue(kind)
    truth = np.zeros(image.shape[:2], bool)
    truth[5:30, 10:35] = True
    methods = {
        "diffsegmenter": SETTINGS["diffsegmenter"],
        "mine": Settings(isolate="every", tail="empty", steps=2),
    }
    cells, found = search_phrase(image, "the red strawberry", truth, models, methods)
    tried = candidates(cells)
    assert {name: ious.shape for name, ious in found.items()} == dict.fromkeys(
        methods, (len(tried), len(THRESHOLDS))
    )
    latent, curves = nb.encode_image(image, models), []
    some = list(range(0, len(tried), 11))
    assert {tried[i].timesteps for i in some} == set(TIMESTEPS)
    assert {tried[i].layers for i in some} == {"all", "no-mid", "up"}
    for name, settings in methods.items():
        for i in some:
            asked = replace(tried[i], weights=tried[i].weights or "equal")
            given = replace(
                settings, **{f: getattr(asked, f) for f in Gathering.__dataclass_fields__}
            )
            heat = nb.segment(
                image, "the red strawberry", models, settings=given, latent=latent
            ).map
            curve = [
                ((heat >= np.float32(t)) & truth).sum() / ((heat >= np.float32(t)) | truth).sum()
                for t in THRESHOLDS
            ]
            assert np.abs(found[name][i] / STEPS - curve).max() < 5e-3, tried[i]
            curves.append(curve)
    spread = np.abs(np.asarray(curves)[:, None] - np.asarray(curves)[None]).max(-1)
    assert np.median(spread) > 0.05  # ten times what is forgiven


def test_ious_are_kept_whole():
    ious = np.random.default_rng(0).integers(0, STEPS + 1, (7, len(THRESHOLDS)), np.uint16)
    ious[0], ious[1, ::2] = STEPS, 0
    assert np.array_equal(unpack(pack(ious)), ious)


# Which is taken --------------------------------------------------------------------------------

SIMPLE = Gathering((50,), None, normalize="none")
OTHER = Gathering((100,), None, normalize="none")
UP = Gathering((50,), None, "up", "none")
SLOW = Gathering((100, 200), None, normalize="none")
TRIED = [SIMPLE, OTHER, UP, SLOW]


def made(means, noise=0.1, phrases=40, seed=0):
    """IoUs with these means at threshold 0.3, each gathering's noise its own; less elsewhere."""
    rng = np.random.default_rng(seed)
    ious = np.zeros((phrases, len(means), len(THRESHOLDS)))
    drawn = rng.normal(0, noise, (phrases, len(means)))
    ious[:, :, 30] = np.asarray(means) + drawn - drawn.mean(axis=0)
    ious[:, :, 31] = ious[:, :, 30] - 0.01
    return ious.clip(0, 1)


@pytest.mark.parametrize(
    ("means", "chosen"),
    [
        ((0.501, 0.500, 0.500, 0.505), SIMPLE),  # all within the noise, which is about .022
        ((0.500, 0.502, 0.500, 0.505), OTHER),  # equally simple, and better
        ((0.400, 0.400, 0.500, 0.505), UP),
        ((0.400, 0.400, 0.400, 0.505), SLOW),
        ((0.400, 0.400, 0.505, 0.400), UP),
    ],
)
def test_a_tie_goes_to_the_simpler(means, chosen):
    found, rows = choose(made(means), np.arange(40), TRIED)
    assert found == replace(chosen, threshold=0.3)
    assert [row["miou"] for row in rows] == sorted((round(m, 4) for m in means), reverse=True)
    assert [row["chosen"] for row in rows].count(True) == 1
    assert rows[0]["behind"] == [0, 0, 0] and rows[0]["tied"]
    for row, mean in zip(rows, sorted(means, reverse=True), strict=True):
        gap, low, high = row["behind"]
        assert gap == pytest.approx(max(means) - mean, abs=1e-4)
        assert low <= gap <= high
        assert row["tied"] == (gap < 0.015)
    (row,) = (row for row in rows if row["chosen"])
    assert row.items() >= as_record(found).items()


def test_without_noise_the_best_is_taken():
    found, _ = choose(made((0.5, 0.5, 0.5, 0.505), noise=0), np.arange(40), TRIED)
    assert found == replace(SLOW, threshold=0.3)
    alone, _ = choose(made((0.5, 0.4, 0.3, 0.6), phrases=1, noise=0), np.zeros(1), TRIED)
    assert alone == replace(SLOW, threshold=0.3)


def test_ten_are_shown_and_the_chosen_one():
    many = [*TRIED[:1], *(replace(SLOW, timesteps=(t, 1)) for t in range(30))]
    found, rows = choose(made([0.5, *np.linspace(0.501, 0.505, 30)]), np.arange(40), many)
    assert found == replace(SIMPLE, threshold=0.3)
    assert len(rows) == 11
    assert [row["chosen"] for row in rows] == [False] * 10 + [True]


def test_a_standard_error_counts_pictures():
    values = np.random.default_rng(0).normal(size=(30, 3))
    wanted = values.std(axis=0, ddof=1) / np.sqrt(30)
    assert standard_errors(values, np.arange(30)) == pytest.approx(wanted, rel=1e-12)
    twice = standard_errors(np.repeat(values, 2, axis=0), np.repeat(np.arange(30), 2))
    assert twice == pytest.approx(wanted, rel=1e-12)  # a phrase said twice tells nothing new


# What is written -------------------------------------------------------------------------------


@pytest.fixture
def folder(models, tmp_path, monkeypatch):
    """Two pictures whose nouns the small parser knows, and a folder that stands for the model."""
    home, there = nb.data_folder() / "stickers", tmp_path / "data" / "stickers"
    (there / "images").mkdir(parents=True)
    refs = json.loads((home / "refs(stickers).json").read_text())[:6]
    for ref in refs:
        for number, sentence in enumerate(ref["sentences"]):
            sentence["sent"] = "the red moon" if number else "a ring"
    (there / "refs(stickers).json").write_text(json.dumps(refs))
    shutil.copy(home / "instances.json", there)
    for name in {ref["file_name"] for ref in refs}:
        shutil.copy(home / "images" / name, there / "images")
    monkeypatch.chdir(tmp_path)
    Path("model").mkdir()
    Path("model/weights").write_text("as they are")
    loaded = []
    monkeypatch.setattr(search_of, "load_models", lambda *a, **k: loaded.append(a) or models)
    return loaded


def command(*more):
    base = ["calibrate", "--dataset", "stickers", "--root", "data/stickers", "--model", "model"]
    return main([*base, "--work", "build/calibration", *more])


def test_the_command_finds_what_segment_then_uses(folder, models, capsys):
    assert command("--phrases", "2") == 0
    shown = capsys.readouterr().out
    calibration = read_calibration(Path("model"))
    assert set(calibration.methods) == set(SETTINGS)
    (search,) = calibration.chosen
    assert (search["pictures"], search["phrases"], search["errors"]) == (2, 4, 0)
    assert (search["split"], search["gatherings"]) == ("val", 11 * len(TIMESTEPS) * 2)
    assert search["searched"]["timesteps"] == [list(t) for t in sorted(TIMESTEPS, key=len)]
    data = nb.referring("stickers", "val", "data/stickers")
    records = [
        json.loads(line)[1] for path in Path("build/calibration/parts").iterdir()
        for line in path.read_text().splitlines()[1:]
    ]  # fmt: skip
    asked = [e for e in data.expressions if str(e.id) in {record["id"] for record in records}]
    assert len(asked) == 4
    models = replace(models, calibration=calibration)
    for method in SETTINGS:
        (row,) = (row for row in search["best"][method] if row["chosen"])
        assert row.items() >= as_record(calibration.of(method)).items()
        ious = [
            nb.iou(
                nb.segment(data.image(e.image_id), e.text, models, method=method).mask,
                data.mask(e),
            )
            for e in asked
        ]
        assert row["miou"] == pytest.approx(np.mean(ious), abs=2e-3), method
        assert f"{method}, percent" in shown
    assert len({repr(own) for own in calibration.methods.values()}) > 1
    (row,) = (row for row in search["best"]["default"] if row["chosen"])
    assert row.items() >= as_record(calibration).items()


def test_the_command_resumes(folder, capsys):
    """Nothing is done twice, though the folder of the model is another now."""
    assert command("--quiet") == 0
    first = Path("model/nbhelpers.json").read_bytes()
    assert command("--quiet") == 0
    assert len(folder) == 1
    assert Path("model/nbhelpers.json").read_bytes() == first  # in place of the first search
    Path("model/nbhelpers.json").unlink()
    assert command("--quiet", "--out", "elsewhere") == 0
    assert Path("elsewhere/nbhelpers.json").read_bytes() == first
    assert not Path("model/nbhelpers.json").exists()
    assert command("--quiet", "--limit", "1") == 2
    message = capsys.readouterr().err
    assert "dataset.pictures is None there" in message and "with --work" in message
    Path("model/weights").write_text("others")
    assert command("--quiet") == 2
    assert "model.sha256 is" in capsys.readouterr().err


def test_methods_that_are_not_searched_keep_their_own(folder):
    assert command("--quiet", "--limit", "1") == 0
    before = read_calibration(Path("model"))
    own = {"timesteps": [7], "threshold": 0.9}
    record = before.record() | {"timesteps": [5]}
    record["methods"] |= {"plain": own, "sealed": own}
    Path("model/nbhelpers.json").write_text(json.dumps(record))
    assert command("--quiet", "--limit", "1", "--methods", "plain", "--work", "other") == 0
    after = read_calibration(Path("model"))
    assert after.of("plain") == before.of("plain")
    assert (after.of("sealed").timesteps, after.of("sealed").threshold) == ((7,), 0.9)
    assert after.timesteps == (5,)
    assert [search["methods"] for search in after.chosen] == [list(SETTINGS), ["plain"]]
    assert set(after.chosen[1]["best"]) == {"plain"}


def test_errors_are_left_out_and_counted(folder, capsys):
    path = Path("data/stickers/refs(stickers).json")
    path.write_text(path.read_text().replace("a ring", "of of"))
    assert command("--quiet", "--phrases", "9", "--methods", "plain") == 3
    assert "6 phrases ended in an error and were left out" in capsys.readouterr().err
    assert read_calibration(Path("model")).chosen[0]["errors"] == 6
    path.write_text(path.read_text().replace("the red moon", "of of"))
    assert command("--quiet", "--methods", "plain", "--work", "other") == 2
    assert "none of 2 phrases could be read, the first: ValueError" in capsys.readouterr().err


def test_what_cannot_be_calibrated_is_refused_before_loading(folder, capsys):
    assert command("--model", "stable-diffusion-v1-5/stable-diffusion-v1-5") == 2
    assert "lies in the Hub's cache, where no calibration is kept; give --out" in (
        capsys.readouterr().err
    )
    Path("model/nbhelpers.json").write_text('{"size": 3}')
    assert command() == 2
    assert "size is no field of it" in capsys.readouterr().err
    assert folder == []
