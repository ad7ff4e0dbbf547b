"""The family's systems in a run, by both protocols, and the one table of them all."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import nbhelpers as nb
from nbhelpers.cli import main
from nbhelpers.evaluation import jobs, load_results
from nbhelpers.evaluation.batched import Question
from nbhelpers.evaluation.classes import Drawn, count_classes
from nbhelpers.evaluation.jobs import Job
from nbhelpers.evaluation.results import under
from nbhelpers.family import SYSTEMS, System, digest, maskclip
from nbhelpers.family.evaluation import costs, tables
from nbhelpers.family.evaluation.costs import measure, measure_costs, read_costs
from nbhelpers.family.evaluation.tables import family_jobs, family_table, job_of_each
from nbhelpers.family.reading import SystemReader, choices_of, find_system
from nbhelpers.segment import SETTINGS
from tests.evaluated_runs import made_counts, made_run
from tests.tiny_clip import WIDTH, make_clip

NOUNS = ("ring", "moon", "dog")  # that the tests' parser knows
TWO = {name: SYSTEMS[name] for name in ("maskclip", "diffseg")}
TWO["diffseg"] = replace(TWO["diffseg"], choices=({"threshold": 0.9}, {"threshold": 5.0}))


@pytest.fixture(scope="module")
def with_clip(models, text):
    return replace(models, sources={**models.sources, "clip": make_clip(text.tokenizers[0])})


@pytest.fixture
def world(tmp_path, monkeypatch, with_clip):
    """Two pictures of val and two of testA, whose things are called what the parser knows."""
    home = nb.data_folder() / "stickers"
    there = tmp_path / "data" / "stickers"
    for name in ("images", "stable-diffusion", "clip"):
        (there / name).mkdir(parents=True)
    refs = json.loads((home / "refs(stickers).json").read_text())
    chosen = {
        number: split
        for split in ("val", "testA")
        for number in sorted({r["image_id"] for r in refs if r["split"] == split})[:2]
    }
    refs = [ref for ref in refs if ref["image_id"] in chosen]
    for index, ref in enumerate(refs):
        for sentence in ref["sentences"]:
            sentence["sent"] = f"the {'red' if sentence['kind'] == 'attribute' else 'old'} "
            sentence["sent"] += NOUNS[index % 3]
    (there / "refs(stickers).json").write_text(json.dumps(refs))
    instances = json.loads((home / "instances.json").read_text())
    for key, field in (("images", "id"), ("annotations", "image_id")):
        instances[key] = [one for one in instances[key] if one[field] in chosen]
    for category in instances["categories"]:
        category["name"] = f"{category['name']} {NOUNS[category['id'] % 3]}"
    (there / "instances.json").write_text(json.dumps(instances))
    for image in instances["images"]:
        name = Path(image["file_name"]).name
        shutil.copy(home / "images" / name, there / "images")
    monkeypatch.setenv("NBHELPERS_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "code_version", lambda sources=(): f"as it was, {len(sources)}")
    monkeypatch.setattr(jobs, "load_models", lambda *a, **k: with_clip)
    monkeypatch.setattr(costs, "ProcessPoolExecutor", lambda n, mp_context: ThreadPoolExecutor(n))
    return there


def evaluated(out, *more):
    arguments = ["--dataset", "stickers", "--model", "stickers", "--out", str(out), "--quiet"]
    assert main(["evaluate", *arguments, *more]) == 0
    return json.loads((Path(out) / "report.json").read_text())


def test_a_readers_maps_are_the_systems_own(with_clip, image):
    reader = SystemReader(with_clip, TWO["maskclip"])
    texts = ["a red ring", "the moon"]
    together = reader.together(image, texts)
    wanted = maskclip.maps(image, texts, with_clip)
    assert len(together) == 2 and reader.names == ("maskclip",)
    assert all(np.array_equal(a[0], b) for a, b in zip(together, wanted, strict=True))
    (alone,) = reader.maps([Question(image, "the moon")])
    assert np.array_equal(alone[0], maskclip.maps(image, ["the moon"], with_clip)[0])
    assert not np.array_equal(alone[0], together[1][0])  # nothing competes with it


def test_each_choice_of_a_system_is_a_variant(with_clip, image):
    reader = SystemReader(with_clip, TWO["diffseg"])
    assert reader.names == ("diffseg threshold=0.9", "diffseg threshold=5.0")
    (found,) = reader.maps([Question(image, "the moon")])
    assert found.shape == (2, 40, 56) and not torch.equal(found[0], found[1])


def broken_maps(image, texts, models, *, value):
    return np.full((len(texts), *image.shape[:2]), value, np.float32)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_maps_out_of_range_are_refused(with_clip, image, value):
    system = System(
        "broken",
        "Broken",
        "nobody",
        takes=("phrase",),
        supervision="none",
        maps=f"{__name__}.broken_maps",
        choices=({"value": value},),
    )
    with pytest.raises(ValueError, match="Broken made maps of shape .*wanted .* in \\[0, 1\\]"):
        SystemReader(with_clip, system).maps([Question(image, "the moon")])


@pytest.mark.parametrize("prompts", ["phrase", "classes"])
def test_a_run_is_the_same_however_it_was_run(world, prompts):
    more = ["--method", "diffseg", "--prompts", prompts]
    whole = evaluated("whole", *more)
    assert whole["errors"] == {} and whole["items"] == (2 if prompts == "classes" else 14)
    for batch, shards in ((3, 1), (1, 2)):
        out = f"out-{batch}-{shards}"
        for i in reversed(range(shards)):
            command = ["evaluate", "--dataset", "stickers", "--model", "stickers", "--quiet"]
            share = ["--shard", f"{i}/{shards}", "--batch", str(batch), "--out", out]
            assert main([*command, *more, *share]) == 0
        assert (Path(out) / "report.json").read_bytes() == Path("whole/report.json").read_bytes()
    # Half of it lost, torn in the middle of a line: the same command makes it whole again.
    (part,) = Path("whole/parts").glob("*.jsonl")
    part.write_bytes(part.read_bytes()[: part.stat().st_size * 2 // 3])
    before = Path("whole/report.json").read_bytes()
    assert evaluated("whole", *more) == whole
    assert Path("whole/report.json").read_bytes() == before


@pytest.mark.parametrize(("prompts", "items"), [("phrase", 14), ("classes", 2)])
def test_daam_is_evaluated_by_both_protocols(world, prompts, items):
    assert tables.ENTRIES["daam"].title == "DAAM"
    report = evaluated("out", "--method", "daam", "--prompts", prompts)
    assert report["errors"] == {} and report["items"] == items
    assert list(report["variants"]) == ["daam"]


def test_classes_are_asked_for_together_and_pooled(world, with_clip):
    report = evaluated("out", "--method", "maskclip", "--prompts", "classes")
    scenes = Drawn(nb.referring("stickers", "val"))
    totals = {}
    for number in scenes.image_ids:
        image, truth = scenes.image(number), scenes.class_map(number)
        present = [int(c) for c in np.unique(truth) if c]
        found = maskclip.maps(image, [scenes.categories[c] for c in present], with_clip)
        maps = [torch.from_numpy(values) for values in found]
        for c, (shared, _) in count_classes(maps, present, truth, len(scenes.categories)).items():
            totals[c] = totals.get(c, 0) + np.asarray(shared)
    for c, shared in totals.items():
        assert report["variants"]["maskclip"][c]["intersection"] == shared.tolist()


def test_the_manifest_says_what_a_systems_numbers_depend_on(world):
    evaluated("out", "--method", "maskclip")
    (variant,) = json.loads(Path("out/manifest.json").read_text())["settings"]["variants"].values()
    assert variant["system"] == "maskclip" and variant["weights"] is None
    assert variant["code"] == "as it was, 1"
    (world / "clip" / "model.safetensors").write_bytes(b"another")
    arguments = ["--dataset", "stickers", "--model", "stickers", "--out", "out", "--quiet"]
    assert main(["evaluate", *arguments, "--method", "maskclip"]) == 2


@pytest.mark.parametrize(
    ("method", "prompts", "words"),
    [
        (["reco"], "phrase", "ReCo takes classes and not phrase; give --prompts classes"),
        (["reco"], "classes", "the weights of ReCo are not at .*recipe family --systems reco"),
        (["maskclip", "plain"], "phrase", "a run is of one system"),
        (["maskclip", "diffseg"], "phrase", "a run is of one system"),
    ],
)
def test_refused_before_anything_is_loaded(world, capsys, monkeypatch, method, prompts, words):
    monkeypatch.setattr(jobs, "load_models", lambda *a, **k: pytest.fail("was loaded"))
    arguments = ["--dataset", "stickers", "--model", "stickers", "--out", "out", "--quiet"]
    arguments += ["--prompts", prompts, "--method", *method]
    assert main(["evaluate", *arguments]) == 2
    import re

    assert re.search(words, capsys.readouterr().err)
    assert not Path("out").exists()


def test_every_system_that_is_registered_can_be_loaded():
    for name, system in SYSTEMS.items():
        assert name == system.name and system.takes and system.choices
        assert callable(system.load())
        assert len(choices_of(system)) == len(system.choices)
    with pytest.raises(ValueError, match="there is no system 'nothing'"):
        find_system("nothing", "phrase")


RECORD = {"system": "diffseg", "code": "x", "weights": None, "clip": "x"}
CHOICES = {
    f"diffseg threshold={nats}": {**RECORD, "options": {"threshold": nats}} for nats in (0.1, 0.9)
}


@pytest.fixture
def runs(tmp_path):
    """Runs of phrases of one system with two choices, and of the method's settings."""
    for split, pictures in (("val", 5), ("testA", 7)):
        made_run(tmp_path / f"a-{split}", split, CHOICES, pictures=pictures)
        own = {name: SETTINGS[name] for name in ("paper", "plain")}
        made_run(tmp_path / f"b-{split}", split, own, pictures=pictures)
    return tmp_path


def mean_iou(split, name, pictures, threshold):
    """From the made counts, anew."""
    found = []
    for image in range(1, pictures + 1):
        for number in range(3):
            shared, either = made_counts(split, name, {"id": f"{image}-{number}"})
            found.append(shared[threshold] / either[threshold])
    return np.mean(found)


def test_choice_and_threshold_are_of_val_and_the_figures_of_test(runs):
    (table,) = family_table(runs, {"diffseg": {"seconds": 0.5, "mib": 100.0}})
    assert [row["method"] for row in table["rows"]] == ["paper", "diffseg"]  # plain is no system
    row = table["rows"][1]
    on_val = {(c, t): mean_iou("val", c, 5, t) for c in CHOICES for t in range(101)}
    choice, threshold = max(on_val, key=on_val.get)
    found = row["phrase"]
    assert (found["variant"], found["threshold"]) == (choice, threshold / 100)
    wanted = mean_iou("testA", choice, 7, threshold)
    assert found["miou"]["mean"] == pytest.approx(wanted, abs=1e-6)
    assert found["miou"]["low"] < wanted < found["miou"]["high"]
    best = max(mean_iou("testA", choice, 7, t) for t in range(101))
    assert found["oracle"] == pytest.approx(best) and best > wanted
    runs_of = {row["method"]: row["phrase"]["fingerprint"] for row in table["rows"]}
    for method, folder in {"diffseg": "a-testA", "paper": "b-testA"}.items():
        (part,) = (runs / folder / "parts").glob("*.jsonl")
        assert f'"fingerprint":"{runs_of[method]}"' in part.read_text().splitlines()[0]
    assert len(set(runs_of.values())) == 2
    assert row["classes"] is None and row["cost"]["seconds"] == 0.5
    assert table["rows"][0]["cost"] is None and table["rows"][0]["quoted"] == 0.379
    assert (table["pictures"], table["expressions"], table["split"]) == (7, 21, "testA")


def test_the_table_is_written_and_read(runs, capsys):
    assert main(["tables", str(runs), "--out", str(runs / "out")]) == 0
    assert "family.md" in capsys.readouterr().out
    assert not (runs / "out" / "tables.json").exists()
    row = load_results(runs / "out").row("family", method="diffseg")
    page = (runs / "out" / "family.md").read_text()
    mean = f"{100 * row['phrase']['miou']['mean']:.1f}"
    assert f"| DiffSeg | none |  | {mean} [" in page
    assert page.index("learned from") < page.index("37.9")


def test_a_system_that_masks_supervise_is_a_ceiling(runs, monkeypatch):
    entry = replace(tables.ENTRIES["diffseg"], supervision="masks")
    monkeypatch.setitem(tables.ENTRIES, "diffseg", entry)
    (table,) = family_table(runs)
    page = nb.evaluation.markdown(table)
    assert "| DiffSeg, supervised: a ceiling | masks |" in page
    assert page.index("the paper |") < page.index("DiffSeg,")


def test_runs_of_other_weights_or_pictures_are_refused(runs):
    shutil.rmtree(runs / "a-testA")
    changed = {name: {**record, "weights": "y"} for name, record in CHOICES.items()}
    made_run(runs / "a-testA", "testA", changed, pictures=7)
    with pytest.raises(ValueError, match="different code, weights or settings of a system"):
        family_table(runs)
    shutil.rmtree(runs / "a-testA")
    few = {"name": "stickers", "split": "testA", "broken": 0, "pictures": 3}
    made_run(runs / "a-testA", "testA", CHOICES, pictures=3, dataset=few)
    with pytest.raises(ValueError, match="_of_pictures .* where the other runs have"):
        family_table(runs)


def test_the_protocols_may_have_their_own_numbers_of_pictures(runs):
    (table,) = family_table(runs)
    (kind,) = {"pictures", "class_pictures"} & table.keys()
    both = under(table | {"pictures": 5, "expressions": 29, "class_pictures": 7})
    assert "classes of 7 pictures, 29 expressions of 5 pictures; " in both
    alone = {key: value for key, value in table.items() if key not in (kind, "expressions")}
    assert ": classes of 7 pictures; " in under(alone | {"class_pictures": 7})


def test_one_that_was_left_out_has_a_row_in_place_of_its_runs(runs):
    left_out = {"diffseg": "not run: no reason", "odise": "not run: another"}
    shutil.copytree(runs / "a-val", runs / "a-other")  # of which there may be too many
    costs = {"diffseg": {"seconds": 0.5, "mib": 100.0}}
    (table,) = family_table(runs, costs, left_out)
    assert [row["method"] for row in table["rows"]] == ["paper", "diffseg", "odise"]
    for row in table["rows"][1:]:
        assert row["not_run"] == left_out[row["method"]]
        assert row["classes"] is row["phrase"] is row["cost"] is None
    assert table["rows"][0]["not_run"] is None
    page = nb.evaluation.markdown(table)
    assert "| DiffSeg | none | not run: no reason |  |  |  |  |" in page
    assert "| ODISE, supervised: a ceiling | masks | not run: another |" in page


def test_without_runs_there_is_no_table(tmp_path):
    with pytest.raises(ValueError, match="holds no runs of systems.*reproduce --parts family"):
        family_table(tmp_path)


def test_all_by_one_command(world, monkeypatch, capsys):
    monkeypatch.setattr(tables, "SYSTEMS", TWO)
    monkeypatch.setattr("nbhelpers.family.reading.SYSTEMS", TWO)
    command = ["reproduce", "--dataset", "stickers", "--model", "stickers", "--parts", "family"]
    command += ["--work", "runs", "--out", "out"]
    assert main([*command, "--shard", "0/2"]) == 0
    assert "when the other shares are done" in capsys.readouterr().out
    assert main(command) == 0
    rows = load_results("out").rows("family")
    assert [row["method"] for row in rows] == ["diffsegmenter", "paper", "sealed", *TWO]
    for row in rows:
        assert row["classes"]["miou"]["pictures"] == row["phrase"]["miou"]["pictures"] == 2
        assert row["cost"]["seconds"] > 0 and row["cost"]["mib"] > 50
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    monkeypatch.setattr(jobs, "load_models", lambda *a, **k: pytest.fail("was loaded"))
    assert main([*command, "--quiet"]) == 0
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


def write_reco(with_clip, world, **known):
    """References of the world's classes, from nothing but a seed."""
    categories = json.loads((world / "instances.json").read_text())["categories"]
    torch.manual_seed(0)
    references = {one["name"]: torch.randn(WIDTH).half() for one in categories}
    path = SYSTEMS["reco"].weights
    path.parent.mkdir(exist_ok=True)
    save_file(references, path, metadata={"format": "pt", **known})


def test_what_has_no_weights_is_left_out_and_joins_when_it_has(
    world, monkeypatch, with_clip, capsys
):
    systems = {"maskclip": SYSTEMS["maskclip"], "reco": SYSTEMS["reco"]}
    monkeypatch.setattr(tables, "SYSTEMS", systems)
    monkeypatch.setattr(tables, "METHODS", {"paper": tables.METHODS["paper"]})
    monkeypatch.setattr(tables, "load_models", lambda *a, **k: with_clip)
    command = ["reproduce", "--dataset", "stickers", "--model", "stickers", "--parts", "family"]
    command += ["--work", "runs", "--out", "out", "--pictures", "1"]

    def row():
        return load_results("out").row("family", method="reco")

    assert main(command) == 0
    reason = "not run: its weights aren't trained; python -m recipe family --systems reco makes"
    assert f"reco: {reason} them" in capsys.readouterr().err
    assert row()["not_run"] == f"{reason} them"
    assert row()["classes"] is row()["phrase"] is row()["cost"] is None
    page = Path("out/family.md").read_text()
    assert f"| ReCo | none | {reason} them |  |  |  | 15.7 |" in page
    assert page.index("MaskCLIP") < page.index("ReCo")
    assert load_results("out").row("family", method="maskclip")["not_run"] is None
    write_reco(with_clip, world, clip=digest(with_clip.clip.model))
    assert main(command) == 0
    assert row()["not_run"] is None and row()["classes"]["miou"]["pictures"] == 1
    assert "not run" not in Path("out/family.md").read_text()
    # The runs are still there, but what the weights were made with isn't.
    write_reco(with_clip, world, clip="another")
    assert main([*command, "--quiet"]) == 0
    assert "made with another CLIP; python -m recipe family --systems reco" in row()["not_run"]
    assert row()["classes"] is row()["cost"] is None
    assert main(["tables", "runs/family", "--out", "again", "--quiet"]) == 0
    assert Path("again/family.md").read_bytes() == Path("out/family.md").read_bytes()


def test_a_damaged_list_of_what_was_left_out_is_refused(tmp_path):
    assert tables.read_left_out(tmp_path) == {}
    tables.write_left_out(tmp_path, {"reco": "not run"})
    assert tables.read_left_out(tmp_path) == {"reco": "not run"}
    (tmp_path / "left-out.json").write_text("{")
    with pytest.raises(ValueError, match="left-out.json is damaged.*remove it and run again"):
        tables.read_left_out(tmp_path)


def test_weights_of_another_clip_are_refused_before_any_picture(world, with_clip, capsys):
    arguments = ["--dataset", "stickers", "--model", "stickers", "--out", "out", "--quiet"]
    write_reco(with_clip, world, clip="another")
    assert main(["evaluate", *arguments, "--method", "reco"]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "weights of ReCo" in told and "made with another CLIP than" in told
    assert "python -m recipe family --systems reco" in told
    assert not any('"counts"' in path.read_text() for path in Path("out").glob("parts/*.jsonl"))
    assert not Path("out/report.json").exists()
    write_reco(with_clip, world, clip=digest(with_clip.clip.model))
    assert evaluated("out2", "--method", "reco")["items"] == 2
    write_reco(with_clip, world)  # a file that doesn't say passes
    assert evaluated("out3", "--method", "reco")["items"] == 2


def test_the_jobs_are_those_that_each_system_takes():
    base = Job("stickers", "val", {}, model="stickers")
    found = family_jobs(base, 4)
    assert {job.pictures for job in found.values()} == {4}
    asked = {(job.prompts, job.split): job.pictures for job in family_jobs(base).values()}
    assert asked == {
        **{("classes", "val"): 100, ("classes", "testA"): 200},
        **{("phrase", "val"): 50, ("phrase", "testA"): 100},
    }
    assert "reco-phrase-val" not in found and "reco-classes-testA" in found
    assert {job.split for job in found.values()} == {"val", "testA"}
    assert not [name for name in family_jobs(base, without={"tcl"}) if name.startswith("tcl-")]
    each = job_of_each(found)
    assert set(each) == {"diffsegmenter", "paper", "sealed", *SYSTEMS}
    assert all(len(job.variants) == (job.system is None) for job in each.values())
    assert family_jobs(replace(base, model="shapes")) == {}
    assert family_jobs(replace(base, dataset="refcoco")) == {}


def test_what_was_measured_is_kept(world, tmp_path):
    job = Job("stickers", "val", {}, model="stickers", system="maskclip")
    measure_costs({"maskclip": job}, tmp_path)
    (found,) = read_costs(tmp_path).values()
    assert 0 < found["seconds"] < 5
    known = {"maskclip": found | {"seconds": 77.0}, "tcl": found | {"of": "another's"}}
    (tmp_path / "costs.json").write_text(json.dumps(known))
    measure_costs({"maskclip": job, "tcl": job}, tmp_path)
    again = read_costs(tmp_path)
    assert again["maskclip"]["seconds"] == 77.0  # of the same code, weights and settings
    assert 0 < again["tcl"]["seconds"] < 5 and again["tcl"]["of"] == found["of"]
    (tmp_path / "costs.json").write_text("{")
    with pytest.raises(ValueError, match="costs.json is damaged"):
        read_costs(tmp_path)


def hungry_maps(image, texts, models):
    """Holds 200 MiB for a while, and works for at least a hundredth of a second."""
    held = np.ones(200 * 2**17)
    while held.sum() < 0:
        pass
    return maskclip.maps(image, texts, models)


def test_memory_is_measured_at_its_peak(world, monkeypatch):
    hungry = replace(SYSTEMS["maskclip"], name="hungry", maps=f"{__name__}.hungry_maps")
    monkeypatch.setattr("nbhelpers.family.reading.SYSTEMS", {**TWO, "hungry": hungry})
    job = Job("stickers", "val", {}, model="stickers", system="maskclip", prompts="classes")
    plain, more = measure(job), measure(replace(job, system="hungry"))
    assert 150 < more["mib"] - plain["mib"] < 260
    assert more["seconds"] > plain["seconds"]


def test_of_choices_that_cost_alike_the_seconds_are_those_of_one(world, monkeypatch):
    monkeypatch.setattr(SystemReader, "together", lambda *args: [])
    monkeypatch.setattr(costs.time, "process_time", iter([10.0, 18.0]).__next__)
    job = Job("stickers", "val", {}, model="stickers", system="diffseg")
    assert len(job.reader().names) == 4
    assert measure(job, pictures=1)["seconds"] == 2.0


def test_another_models_family_is_refused_and_said(world, capsys):
    more = ["--model", str(world), "--work", "w", "--out", "o"]
    assert main(["reproduce", "--parts", "family", *more]) == 2
    assert "the part family is of stickers and its model" in capsys.readouterr().err
